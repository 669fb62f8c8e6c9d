"""A step whose gradient is not finite is not made, and what was in its batch is written down as not trained on."""

from __future__ import annotations

import logging

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

log = logging.getLogger(__name__)

METRIC = "data/lost_steps"


class FiniteSteps(Callback):
    """Takes the gradients away from the optimizer where one of them is not finite on any rank.

    With a gradient scaler (amp_fp16) the scaler itself leaves such a step out and lowers its scale, which is how it is
    known here.

    Attributes:
        lost_steps: since this start of the run.
        step_was_lost: whether the batch that has just ended was not trained on; the same on all ranks.
    """

    def __init__(self) -> None:
        self.step_was_lost = False
        self.lost_steps = 0
        self.scale: float | None = None

    def batch_start(self, state: State, logger: Logger) -> None:
        self.step_was_lost = False
        scaled = state.scaler is not None and state.scaler.is_enabled()
        self.scale = state.scaler.get_scale() if scaled and state.scaler is not None else None

    def after_train_batch(self, state: State, logger: Logger) -> None:
        if self.scale is not None:
            return
        gradients = [parameter.grad for parameter in state.model.parameters() if parameter.grad is not None]
        self.step_was_lost = bool(self.any_rank(state, not are_finite(gradients)))
        if self.step_was_lost:
            for parameter in state.model.parameters():
                parameter.grad = None

    def batch_end(self, state: State, logger: Logger) -> None:
        if self.scale is not None and state.scaler is not None:
            self.step_was_lost = bool(self.any_rank(state, state.scaler.get_scale() < self.scale))
        if self.step_was_lost:
            self.lost_steps += 1
            log.warning(
                "batch %d: the gradient is not finite, the step is not made and its samples are not trained on",
                int(state.timestamp.batch),
            )
        logger.log_metrics({METRIC: self.lost_steps})

    def any_rank(self, state: State, wish: bool) -> int:
        found = state.device.tensor_to_device(torch.tensor([int(wish)], dtype=torch.int32))
        dist.all_reduce(found, reduce_operation="MAX")
        return int(found.item())


def are_finite(gradients: list[torch.Tensor]) -> bool:
    """Whether all values of this rank's parts of some gradients are finite."""
    local = [one.to_local() if hasattr(one, "to_local") else one for one in gradients]  # pyright: ignore
    local = [one for one in local if one.numel()]
    return not local or bool(torch.stack([one.isfinite().all() for one in local]).all())
