"""Composer's EMA, whose average goes on with any number of ranks."""

from __future__ import annotations

from typing import Any

from composer import algorithms
from composer.core import Event, State
from composer.loggers import Logger

from theworld.checkpoint.moving_average import WRAPPED
from theworld.errors import UserError


class EMA(algorithms.EMA):
    """Composer's: it knows weights by the names of the model as DDP has wrapped it or not, and would go on from a
    checkpoint of one rank on two, or of two on one, without a single weight that it knows."""

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        if event == Event.FIT_START and self.ema_model is not None:
            named = {name.removeprefix(WRAPPED): name for name, _ in state.model.named_parameters()}
            named |= {name.removeprefix(WRAPPED): name for name, _ in state.model.named_buffers()}
            model = self.ema_model
            for kept in ("named_parameters_dict", "named_buffers_dict"):
                values = getattr(model, kept)
                strange = [name for name in values if name.removeprefix(WRAPPED) not in named]
                if strange:
                    raise UserError(f"the checkpoint's moving average is of other weights, for example {strange[0]}")
                setattr(model, kept, {named[name.removeprefix(WRAPPED)]: value for name, value in values.items()})
        super().apply(event, state, logger)

    def state_dict(self) -> dict[str, Any]:
        found = super().state_dict()
        for kept, values in found["ema_model"].items():
            found["ema_model"][kept] = {name.removeprefix(WRAPPED): value for name, value in values.items()}
        return found
