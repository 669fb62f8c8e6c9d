"""The section ``parallelism_config``: FSDP by Composer, in torch's second version."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from composer.distributed import dist_strategy
from composer.utils.parallelism import FSDP2Config, FSDPConfig

from theworld.compat import finds_microbatch_with_fsdp_1
from theworld.config.schema import Config
from theworld.errors import UserError
from theworld.train.memory import frozen_dtype
from theworld.train.optimizer_groups import has_groups

VERSION = "FSDP_VERSION"
"""Composer's environment variable. Version 2 shards parameter by parameter, so that frozen parts may be of another
precision than what trains; Composer's default is 1."""


def prepare_parallelism(config: Config) -> None:
    """Choose the version of FSDP and refuse what Composer would ignore.

    Raises:
        UserError: a key that the version does not have, or a pair that it cannot do.
    """
    settings = (config.parallelism_config or {}).get("fsdp")
    if config.model.load_in_4bit and (config.parallelism_config or {}).get("tp") is not None:
        raise UserError("parallelism_config.tp: not with model.load_in_4bit: packed weights have no rows to divide")
    if settings is None:
        return
    version = os.environ.setdefault(VERSION, "2")
    known = {item.name for item in fields(FSDP2Config if version == "2" else FSDPConfig) if item.name[0] != "_"}
    check_keys(settings, known - {"device_mesh"}, version)
    if settings.get("activation_checkpointing") and config.model.activation_checkpointing:
        raise UserError(
            "parallelism_config.fsdp.activation_checkpointing: every layer would be computed three times, since "
            "model.activation_checkpointing is true as well; set one of them to false"
        )
    if version == "1" and config.model.lora is not None:
        raise UserError("model.lora: with FSDP 2 only; unset FSDP_VERSION, or leave parallelism_config.fsdp out")
    if config.model.load_in_4bit:
        check_four_bits_sharded(config, settings)
    if version == "1" and has_groups(config.optimizer) and not settings.get("use_orig_params", True):
        raise UserError(
            "parallelism_config.fsdp.use_orig_params: false makes one weight of many, of which optimizer.groups and "
            "decay_norms_and_biases cannot tell which is which; leave it out"
        )
    if version == "2" and config.device_train_microbatch_size == "auto":
        raise UserError("device_train_microbatch_size: auto does not work with FSDP 2; give a number")
    if version == "1" and config.device_train_microbatch_size == "auto" and not finds_microbatch_with_fsdp_1():
        raise UserError(
            f"device_train_microbatch_size: auto does not work with FSDP 1 and torch {torch.__version__}, for which "
            "Composer has no patch; give a number"
        )


def check_four_bits_sharded(config: Config, settings: Mapping[str, Any]) -> None:
    """FSDP has weights in 4 bits as numbers of the frozen parts' type, and gathers numbers in that of the products: of
    another type it would round them, and they are none.

    Raises:
        UserError: the two differ.
    """
    if str(settings.get("mixed_precision", "DEFAULT")).upper() == "FULL":
        return
    gathered = {"fp32": torch.float32, "amp_bf16": torch.bfloat16}.get(config.precision)
    if frozen_dtype(config) != gathered:
        raise UserError(
            "model.load_in_4bit: FSDP needs precision amp_bf16 or fp32 and a model.frozen_dtype of the same (null is); "
            f"they are {config.precision} and {config.model.frozen_dtype}"
        )


def check_keys(settings: Any, known: set[str], version: str) -> None:
    """Composer ignores a key of ``parallelism_config.fsdp`` that it does not know."""
    if not isinstance(settings, Mapping):
        raise UserError(f"parallelism_config.fsdp: expected keys and values, such as {{}}, got {settings!r}")
    for key in settings:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
            raise UserError(f"parallelism_config.fsdp.{key}: not a key of FSDP {version}; {hint}")


@contextmanager
def gradients_as_buckets() -> Iterator[None]:
    """Let DDP keep gradients in the buckets that it sums over the ranks, not beside them: 4 bytes a trained weight.

    Composer's ``prepare_ddp_module`` builds ``DistributedDataParallel`` without that setting and takes none, so the
    name that it looks up is another one while the trainer is built.
    """
    name = "DistributedDataParallel"
    plain = getattr(dist_strategy, name)
    setattr(dist_strategy, name, partial(plain, gradient_as_bucket_view=True))
    try:
        yield
    finally:
        setattr(dist_strategy, name, plain)
