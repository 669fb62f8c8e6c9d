"""The learning rate of each part of the model, where ``optimizer.groups`` tells them apart."""

from __future__ import annotations

import torch
from composer.core import Callback, State
from composer.loggers import Logger

NAME = "name"
"""A group's key beside torch's own: the part, with :data:`NO_DECAY` for its norms and biases where these are apart."""
NO_DECAY = "_no_decay"


class GroupRates(Callback):
    """Logs ``lr/<part>`` for each batch."""

    def batch_end(self, state: State, logger: Logger) -> None:
        rates = rates_by_part(state.optimizers[0])
        if rates:
            logger.log_metrics({f"lr/{part}": rate for part, rate in rates.items()})


def rates_by_part(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The learning rate of each part, where there are groups; norms and biases have that of their part."""
    named = [group for group in optimizer.param_groups if NAME in group]
    return {group[NAME].removesuffix(NO_DECAY): float(group["lr"]) for group in named}
