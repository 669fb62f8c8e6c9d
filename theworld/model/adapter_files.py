"""A model's adapters, and what trained beside them, as a folder that peft's ``PeftModel.from_pretrained`` reads.

peft's names have a prefix for the class that it wraps a model in, and none for the adapter, of which there is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from theworld.config.schema import LoraConfig
from theworld.errors import UserError
from theworld.model.check_lora import check_numbers, pattern_of

WEIGHTS = "adapter_model.safetensors"
SETTINGS = "adapter_config.json"
PREFIX = "base_model.model."
OWN = re.compile(r"\.lora_([AB])\.default\.")
THEIRS = re.compile(r"\.lora_([AB])\.(?=weight$)")
BESIDE = ("world_projector", "vision_tower", "multi_modal_projector")
"""Modules that may train whole beside adapters: peft's ``modules_to_save``."""


def peft_name(name: str) -> str:
    """A weight's name in peft's file."""
    return PREFIX + OWN.sub(r".lora_\1.", name)


def own_name(name: str) -> str:
    """A weight's name in the model, from that in peft's file."""
    return THEIRS.sub(r".lora_\1.default.", name.removeprefix(PREFIX))


def modules_beside(names: Iterable[str]) -> list[str]:
    """The modules that weights without adapters belong to."""
    found = {module for name in names if not re.search(r"\.lora_[AB]\.", name) for module in name.split(".")}
    return [module for module in BESIDE if module in found]


def write_adapters(
    weights: Mapping[str, Tensor], settings: Mapping[str, Any], base: Mapping[str, Any], out: Path
) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``.

    Args:
        weights: under the model's own names.
        settings: the configuration's ``lora``.
        base: record of the Gemma 3 that the model is made of.
        out: a folder that is there.

    Raises:
        UserError: weights are among them that neither are adapters nor may be beside them.
    """
    beside = modules_beside(weights)
    strange = [name for name in weights if ".lora_" not in name and not set(beside) & set(name.split("."))]
    if strange:
        raise UserError(f"{strange[0]}: a weight that a repo of adapters cannot hold; export with --merge")
    lora = lora_of(settings)
    described = {
        "peft_type": "LORA",
        "base_model_name_or_path": base.get("name"),
        "revision": base.get("revision"),
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "bias": "none",
        "target_modules": pattern_of(lora),
        "modules_to_save": beside or None,
        "inference_mode": True,
        "task_type": None,
    }
    (out / SETTINGS).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    named = {peft_name(name): weight.detach().cpu().contiguous() for name, weight in weights.items()}
    save_file(named, out / WEIGHTS, metadata={"format": "pt"})


def lora_of(settings: Mapping[str, Any]) -> LoraConfig:
    """The section ``model.lora`` out of a model's configuration.

    Raises:
        UserError: it is of another form, or says what cannot be.
    """
    try:
        lora = LoraConfig(**settings)
        pattern_of(lora)
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError("lora in its config.json is of another form") from error
    check_numbers(lora)
    return lora
