"""``model.load_in_4bit``: whether the base can be in 4 bits, checked before torch or bitsandbytes is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from theworld.config.schema import ModelConfig
from theworld.errors import UserError

FORM = "nf4, blocks of 64, double quantisation"
"""How a base in 4 bits is written down (``form`` in its record): compared, never read for anything else."""


def check_four_bits(config: ModelConfig) -> None:
    """Refuse a base in 4 bits that cannot be.

    Raises:
        UserError: nothing would train on it, or bitsandbytes is not there.
    """
    if not config.load_in_4bit:
        return
    if config.lora is None:
        raise UserError(
            "model.load_in_4bit: weights in 4 bits cannot train, adapters on them can; set model.lora={}, or "
            "model.load_in_4bit=false"
        )
    require_bitsandbytes("model.load_in_4bit")


def require_bitsandbytes(what: str) -> None:
    """Refuse to go on without the package.

    Raises:
        UserError: names the extra.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"{what}: needs bitsandbytes, which is not installed: pip install -c constraints.txt 'theworld[qlora]'"
        )


def in_four_bits(base: Mapping[str, Any], source: str) -> bool:
    """Whether a base's record says that it is in 4 bits; ``source`` has the record, and names it in errors.

    Raises:
        UserError: it says something else.
    """
    form = base.get("form")
    if form is not None and form != FORM:
        raise UserError(f"{source}: the form of its base is not known here; was it written by a newer version?")
    return form is not None
