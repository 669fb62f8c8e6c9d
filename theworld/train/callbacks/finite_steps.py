"""A step whose gradient is not finite is not made, and what was in its batch is written down as not trained on."""

from __future__ import annotations

import logging
from typing import Any

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from theworld.errors import RunFailed

log = logging.getLogger(__name__)

METRIC = "data/lost_steps"
LEFT_OUT, COUNTS = 1, 2
"""What a scaler tells of a step: left out, perhaps for its scale alone; the gradient itself is not finite."""


class FiniteSteps(Callback):
    """Takes the gradients away from the optimizer where one of them is not finite on any rank.

    With a gradient scaler (amp_fp16) the scaler itself leaves such a step out and lowers its scale, which is how it is
    known here. It begins with a scale that is too high, so that such a step only counts towards the end of the run
    where the loss was not finite before it was scaled, or the scale was 1 or less: then the gradient itself is not.

    Args:
        most_in_a_row: so many lost one after the other end the run; None: it goes on.

    Attributes:
        lost_steps: since this start of the run.
        step_was_lost: whether the batch that has just ended was not trained on; the same on all ranks.
    """

    def __init__(self, most_in_a_row: int | None = None) -> None:
        self.most_in_a_row = most_in_a_row
        self.in_a_row = 0
        self.step_was_lost = False
        self.lost_steps = 0
        self.scale: float | None = None
        self.loss_is_finite: torch.Tensor | None = None
        """Of all microbatches so far, on the device: only looked at where the scaler has left a step out."""

    def batch_start(self, state: State, logger: Logger) -> None:
        self.step_was_lost = False
        scaled = state.scaler is not None and state.scaler.is_enabled()
        self.scale = state.scaler.get_scale() if scaled and state.scaler is not None else None
        self.loss_is_finite = None

    def after_loss(self, state: State, logger: Logger) -> None:
        if self.scale is None:
            return
        loss: Any = state.loss["total"] if isinstance(state.loss, dict) and "total" in state.loss else state.loss
        losses = loss.values() if isinstance(loss, dict) else loss if isinstance(loss, (list, tuple)) else [loss]
        for one in losses:
            finite = one.detach().isfinite().all()
            self.loss_is_finite = finite if self.loss_is_finite is None else self.loss_is_finite & finite

    def after_train_batch(self, state: State, logger: Logger) -> None:
        if self.scale is not None:
            return
        gradients = [parameter.grad for parameter in state.model.parameters() if parameter.grad is not None]
        self.step_was_lost = bool(self.any_rank(state, not are_finite(gradients)))
        if self.step_was_lost:
            for parameter in state.model.parameters():
                parameter.grad = None

    def batch_end(self, state: State, logger: Logger) -> None:
        counts = self.step_was_lost
        if self.scale is not None and state.scaler is not None:
            found = self.any_rank(state, self.look_at_scale(state.scaler.get_scale(), self.scale))
            self.step_was_lost, counts = bool(found), found == COUNTS
        if counts:
            self.in_a_row += 1
        elif not self.step_was_lost:
            self.in_a_row = 0
        if self.step_was_lost:
            self.lost_steps += 1
            log.warning(
                "batch %d: the gradient is not finite, the step is not made and its samples are not trained on: %s",
                int(state.timestamp.batch),
                " ".join(state.batch["sample_ids"]),
            )
        logger.log_metrics({METRIC: self.lost_steps})
        if counts and self.in_a_row == self.most_in_a_row:
            # Raised by all ranks, before any save of this batch and before anything goes to the Hub.
            failed = RunFailed(
                f"the gradient was not finite {self.in_a_row} times in a row, the last time in batch "
                f"{int(state.timestamp.batch)}; the checkpoints before are whole: lower optimizer.lr, set "
                "algorithms.gradient_clipping, or see the samples that the log names (most_lost_steps=null goes on)"
            )
            failed.on_all_ranks = True
            raise failed

    def look_at_scale(self, now: float, before: float) -> int:
        """Whether the scaler has left the step out, on this rank: 0, :data:`LEFT_OUT` or :data:`COUNTS`."""
        if now >= before:
            return 0
        finite = self.loss_is_finite is None or bool(self.loss_is_finite)
        return LEFT_OUT if finite and before > 1 else COUNTS

    def any_rank(self, state: State, wish: int) -> int:
        found = state.device.tensor_to_device(torch.tensor([int(wish)], dtype=torch.int32))
        dist.all_reduce(found, reduce_operation="MAX")
        return int(found.item())


def are_finite(gradients: list[torch.Tensor]) -> bool:
    """Whether all values of this rank's parts of some gradients are finite.

    By the least and the greatest value, which are not a number where one value is not: ``isfinite`` of a gradient makes
    two tensors of its size, 2.7 GB for Gemma 3 4B's embedding, and takes ten times as long.
    """
    local = [one.to_local() if hasattr(one, "to_local") else one for one in gradients]  # pyright: ignore
    extremes = [torch.stack(torch.aminmax(one)).isfinite().all() for one in local if one.numel()]
    return not extremes or bool(torch.stack(extremes).all())
