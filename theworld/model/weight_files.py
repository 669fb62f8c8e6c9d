"""Weights in safetensors files, read from a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import logging

from theworld.compat import as_named_here
from theworld.errors import UserError, first_line
from theworld.model.adapter_files import WEIGHTS as ADAPTERS
from theworld.model.adapter_files import own_name

WEIGHTS = re.compile(r"(model(-\d+-of-\d+)?|adapter_model)\.safetensors")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of ``model*.safetensors`` or of ``adapter_model.safetensors`` under the model's own names, including
    those that share memory with another and were stored once.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    files = sorted(path for path in folder.iterdir() if WEIGHTS.fullmatch(path.name))
    if not files:
        raise UserError(f"{folder}: no model.safetensors")
    weights: dict[str, Tensor] = {}
    stored_once: dict[str, str] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                own = own_name if path.name == ADAPTERS else str
                weights.update({as_named_here(own(name)): file.get_tensor(name) for name in names})
                # As huggingface_hub notes it: the name that was left out -> the one that stands for it.
                stored_once.update(file.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: cut short or no safetensors file ({first_line(error)})") from error
    weights.update({name: weights[other] for name, other in stored_once.items() if other in weights})
    return weights


@contextmanager
def errors_only() -> Iterator[None]:
    """transformers' log without its warnings, and no bar of the weights that it loads, which 5 shows for any model."""
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
