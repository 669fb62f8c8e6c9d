"""``stages``: whether each can begin with the weights of the one before, checked before torch is imported.

Without it a stage would be refused when its turn comes, which may be days after the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from theworld.config.schema import Config, ModelConfig
from theworld.errors import UserError
from theworld.model.check_lora import SAME_ADAPTERS

SAME_MODEL = ("gemma", "gemma_revision", "cosmos", "cosmos_revision", "enable_world", "projector")
"""Keys of ``model`` that make other weights."""


def check_succession(runs: Sequence[tuple[str, Config]]) -> None:
    """Each stage against those before it.

    Args:
        runs: the stages' names and configurations, in order.

    Raises:
        UserError: a stage's model could not take over the weights.
    """
    for number, (name, config) in enumerate(runs):
        for before, earlier in runs[:number]:
            check_same_model(name, config.model, before, earlier.model)
            check_adapters(name, config.model, before, earlier.model)


def check_same_model(name: str, model: ModelConfig, before: str, earlier: ModelConfig) -> None:
    """The keys that stand for all stages."""
    for key in SAME_MODEL:
        now, then = getattr(model, key), getattr(earlier, key)
        if now != then:
            raise UserError(
                f"stages, {name}: model.{key} is {shown(now)}, but {shown(then)} in {before}: a stage begins with the "
                "weights of the one before; let it be the same in both"
            )


def check_adapters(name: str, model: ModelConfig, before: str, earlier: ModelConfig) -> None:
    """Adapters stay once they are there, and are not for what has trained itself."""
    if earlier.lora is None:
        trained = [part for part in (model.lora.parts if model.lora else ()) if not getattr(earlier.freeze, part)]
        if trained:
            raise UserError(
                f"stages, {name}: model.lora has {trained[0]}, whose own weights {before} trains; adapters are for a "
                f"part whose weights are the base's: freeze it in {before}, or leave it out of model.lora.parts"
            )
        return
    if model.lora is None:
        raise UserError(
            f"stages, {name}: model.lora is null, but {before} trains adapters: they stay for all later stages; for a "
            "whole model merge them (recipes/export.py --merge) and begin a run of its own"
        )
    if model.load_in_4bit != earlier.load_in_4bit:
        now, then = (str(one.load_in_4bit).lower() for one in (model, earlier))
        raise UserError(
            f"stages, {name}: model.load_in_4bit is {now}, but {then} in {before}, whose adapters are for that base; "
            "let it be the same in both"
        )
    for key in SAME_ADAPTERS:
        now, then = getattr(model.lora, key), getattr(earlier.lora, key)
        if now != then:
            raise UserError(
                f"stages, {name}: model.lora.{key} is {shown(now)}, but {shown(then)} in {before}, whose adapters it "
                "goes on with; let it be the same in both"
            )


def shown(value: Any) -> str:
    """A value of the YAML, in a line."""
    return str(vars(value)) if hasattr(value, "__dict__") else str(value)
