"""``model.lora``: which layers get adapters, checked before torch or peft is imported."""

from __future__ import annotations

import difflib
import importlib.util
import re

from theworld.compat import VISION_LAYERS
from theworld.config.schema import LoraConfig, ModelConfig
from theworld.errors import UserError

LAYERS = {
    "language": (
        r"model\.language_model\.layers\.\d+\.(?:self_attn|mlp)",
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    ),
    "vision": (
        rf"model\.{re.escape(VISION_LAYERS)}\.\d+\.(?:self_attn|mlp)",
        ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    ),
}
"""Part -> where its layers are, and the linear ones in each."""
MOST_RANK = 4096
"""Adapters of a rank beyond the layers' own width save nothing, and could take any memory."""
LARGEST_ALPHA = 1_000_000
SAME_ADAPTERS = ("rank", "alpha", "targets", "parts")
"""Settings of ``model.lora`` without which adapters are others. The dropout may change."""


def check_lora(config: ModelConfig) -> None:
    """Refuse adapters that cannot be.

    Raises:
        UserError: names the key.
    """
    lora = config.lora
    if lora is None:
        return
    if importlib.util.find_spec("peft") is None:
        raise UserError(
            "model.lora: needs peft, which is not installed: pip install -c constraints.txt 'theworld[lora]'"
        )
    check_numbers(lora)
    check_parts(config, lora)
    check_targets(lora)


def check_numbers(lora: LoraConfig) -> None:
    """Rank, alpha and dropout, also of a model's configuration that somebody else has written.

    Raises:
        UserError: one is no number, or beyond what it may be.
    """
    for key, value, least, most in (
        ("rank", lora.rank, 1, MOST_RANK),
        ("alpha", lora.alpha, 0, LARGEST_ALPHA),
        ("dropout", lora.dropout, 0, 1),
    ):
        whole = key != "rank" or isinstance(value, int)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not whole or not least <= value <= most:
            raise UserError(f"model.lora.{key}: {value!r}: expected a number from {least} to {most:,}")
    if lora.dropout == 1:
        raise UserError("model.lora.dropout: 1 drops all of an adapter; expected a share below 1")


def check_parts(config: ModelConfig, lora: LoraConfig) -> None:
    """The parts with adapters, whose own weights are to stay.

    Raises:
        UserError: one is unknown, or trains itself.
    """
    if not lora.parts:
        raise UserError(f"model.lora.parts is empty; expected some of {', '.join(LAYERS)}")
    for part in lora.parts:
        if part not in LAYERS:
            raise UserError(f"model.lora.parts: {part!r} cannot have adapters; known are {', '.join(LAYERS)}")
        if not getattr(config.freeze, part):
            raise UserError(
                f"model.lora.parts has {part}, and model.freeze.{part} is false: adapters are for a part whose own "
                f"weights stay; set model.freeze.{part}=true, or leave it out of model.lora.parts"
            )
    if not config.freeze.language:
        raise UserError(
            "model.lora: a repo of adapters cannot hold a whole language model beside them; set "
            "model.freeze.language=true, or model.lora=null"
        )
    if config.enable_world and not config.freeze.vae:
        raise UserError(
            "model.lora: a repo of adapters cannot hold the VAE beside them; set model.freeze.vae=true, or "
            "model.lora=null"
        )


def check_targets(lora: LoraConfig) -> None:
    """The kinds of layers.

    Raises:
        UserError: one is in none of the parts, or a part has none of them.
    """
    known = list(dict.fromkeys(name for part in lora.parts for name in LAYERS[part][1]))
    for name in lora.targets if lora.targets is not None else known:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            told = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise UserError(f"model.lora.targets: {name!r}: no such linear layer in {', '.join(lora.parts)}; {told}")
    for part in lora.parts:
        if not targets_of(lora, part):
            raise UserError(
                f"model.lora.targets: none of them is in {part}, whose layers are {', '.join(LAYERS[part][1])}; add "
                f"one, or leave {part} out of model.lora.parts"
            )


def targets_of(lora: LoraConfig, part: str) -> list[str]:
    """The kinds of layers of a part that get adapters; all of them if the section names none."""
    return [name for name in LAYERS[part][1] if lora.targets is None or name in lora.targets]


def pattern_of(lora: LoraConfig) -> str:
    """The layers as peft's ``target_modules``: a regular expression for their whole names."""
    return "|".join(rf"{LAYERS[part][0]}\.(?:{'|'.join(targets_of(lora, part))})" for part in sorted(lora.parts))
