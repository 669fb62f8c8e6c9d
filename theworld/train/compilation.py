"""The section ``compile_config``: torch.compile by Composer, with shapes that do not compile again at each batch."""

from __future__ import annotations

import inspect

import torch

from theworld.config.schema import Config
from theworld.errors import UserError

LENGTH_STEP = 256
"""Compiled, batches are padded to a multiple of so many tokens: each length is compiled for once."""


def length_step(config: Config) -> int:
    """The multiple to which batches are padded."""
    return 1 if config.compile_config is None else LENGTH_STEP


def prepare_compilation(config: Config) -> None:
    """Refuse settings that torch.compile does not have, and let it trace the selection of answers.

    How many answer tokens a batch has is in its values. Dynamo would break the graph there, between the decoder and
    the loss, and goes on with a symbol for that number once this is set.

    Raises:
        UserError: an unknown setting or backend.
    """
    if config.compile_config is None:
        return
    known = [name for name in inspect.signature(torch.compile).parameters if name != "model"]
    for key in config.compile_config:
        if key not in known:
            raise UserError(f"compile_config.{key}: unknown setting; known are {', '.join(known)}")
    backend = config.compile_config.get("backend", "inductor")
    backends = torch.compiler.list_backends(exclude_tags=())
    if backend not in backends:
        raise UserError(f"compile_config.backend: {backend!r} is not known; known are {', '.join(backends)}")
    torch._dynamo.config.capture_dynamic_output_shape_ops = True
