"""A resumed run goes on with its optimizer's settings of before; where the YAML has others by now, that is said."""

from __future__ import annotations

import logging
from typing import Any

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from theworld.train.callbacks.group_rates import NAME

log = logging.getLogger(__name__)

RATE, FIRST_RATE = "lr", "initial_lr"
"""What a scheduler has made of the rate, and what it multiplies."""
OF_THE_KERNEL = ("params", NAME, FIRST_RATE, "fused", "foreach", "capturable", "differentiable")
"""What a group holds beside settings that change what a step does."""


class OptimizerInForce(Callback):
    """Compares the settings that a checkpoint has brought with those of the YAML, before the first batch.

    Args:
        optimizer: as the YAML wants it, no checkpoint loaded yet.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.wanted = [
            {key: value for key, value in group.items() if key not in OF_THE_KERNEL} for group in optimizer.param_groups
        ]

    def fit_start(self, state: State, logger: Logger) -> None:
        groups = [group for optimizer in state.optimizers for group in optimizer.param_groups]
        others = [text for pair in zip(groups, self.wanted, strict=False) for text in differences(*pair)]
        if others and dist.get_global_rank() == 0:
            log.warning(
                "optimizer: it goes on with the checkpoint's settings: %s; to change them begin a new run with "
                "load_path and load_weights_only=true",
                ", ".join(others),
            )


def differences(group: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Settings in force that are not the wanted ones, as ``vision.lr=0.001 (the YAML has 0.01)``."""
    begin = f"{group[NAME]}." if NAME in group else ""
    found = []
    for key, value in wanted.items():
        now = group.get(FIRST_RATE, group[RATE]) if key == RATE else group.get(key)
        if plain(now) != plain(value):
            found.append(f"{begin}{key}={plain(now)} (the YAML has {plain(value)})")
    return found


def plain(value: Any) -> Any:
    """A setting as it is compared and shown: a checkpoint may have a list for a tuple, a rate as a tensor."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    return list(value) if isinstance(value, tuple) else value
