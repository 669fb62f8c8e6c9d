"""``optimizer.groups``, checked before torch is imported."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from theworld.config.schema import Config
from theworld.errors import UserError
from theworld.model.parts import PARTS, parts_that_train
from theworld.train.check_values import check_optimizer

GROUPS = "groups"
DECAY = "decay_norms_and_biases"
SETTINGS = ("lr", "weight_decay", "betas", "eps", "momentum")
"""What a group may have of its own."""


def check_optimizer_groups(config: Config) -> None:
    """The groups' names and settings, against what trains.

    Raises:
        UserError: a group is unknown, frozen or not there, or one of its settings is.
    """
    decay = config.optimizer.get(DECAY, True)
    if not isinstance(decay, bool):
        raise UserError(f"optimizer.{DECAY}: {decay!r}: expected true or false")
    groups = config.optimizer.get(GROUPS)
    if groups is None:
        return
    if not isinstance(groups, Mapping):
        raise UserError(f"optimizer.{GROUPS}: {groups!r}: expected parts with their settings: projector: {{lr: 1e-3}}")
    for part, settings in groups.items():
        check_group(config, part, settings)


def check_group(config: Config, part: str, settings: Any) -> None:
    """One group; null leaves it out, as a stage may do.

    Raises:
        UserError: as above.
    """
    key = f"optimizer.{GROUPS}.{part}"
    if part not in PARTS:
        near = difflib.get_close_matches(str(part), PARTS, n=1)
        told = f"did you mean {near[0]}?" if near else f"known are {', '.join(PARTS)}"
        raise UserError(f"{key}: no such part of the model; {told}")
    if settings is None:
        return
    if part not in parts_that_train(config.model):
        there = config.model.enable_world or part in ("vision", "language")
        why = f"model.freeze.{part} is true" if there else "model.enable_world is false"
        raise UserError(f"{key}: nothing of it trains, since {why}; leave the group out, or set that differently")
    if not isinstance(settings, Mapping):
        raise UserError(f"{key}: {settings!r}: expected its settings, for example {part}: {{lr: 1e-5}}")
    for name in settings:
        if name not in SETTINGS:
            raise UserError(f"{key}.{name}: unknown setting of a group; known are {', '.join(SETTINGS)}")
    check_optimizer(settings, key)
