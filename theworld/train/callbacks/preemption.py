"""Stop between batches when SLURM wants the node back: all ranks at the same batch, with a checkpoint; or when a newer
start of the run has begun: without one."""

from __future__ import annotations

import logging

import torch
from composer.core import Callback, State, Time
from composer.loggers import Logger
from composer.utils import dist

from theworld.checkpoint.fence import Fence
from theworld.errors import Stopped
from theworld.signals import StopRequest

log = logging.getLogger(__name__)


STOP, SUPERSEDED = 1, 2


class Preemption(Callback):
    """Ends training after the batch in which any rank was asked to stop.

    Ranks see a signal at different times, so they agree after each batch. Composer's end of training then saves the
    checkpoint at that very batch.
    """

    def __init__(self, stop: StopRequest, fence: Fence) -> None:
        self.stop = stop
        self.fence = fence
        self.stopped = False
        self.planned: Time | None = None

    def fit_start(self, state: State, logger: Logger) -> None:
        self.planned = state.max_duration

    def batch_end(self, state: State, logger: Logger) -> None:
        if self.agreed(state):
            log.info(
                "stopping after batch %d: %s", int(state.timestamp.batch), self.stop.reason or "another rank's wish"
            )
            state.stop_training()

    def eval_batch_end(self, state: State, logger: Logger) -> None:
        if self.agreed(state):
            raise Stopped

    def agreed(self, state: State) -> bool:
        """Whether any rank wants to stop; all ranks call it.

        Raises:
            Superseded: on all ranks, if rank 0 has seen a newer start of the run.
        """
        own = SUPERSEDED if self.fence.lost else STOP if self.stop.wanted else 0
        wish = state.device.tensor_to_device(torch.tensor([own], dtype=torch.int32))
        dist.all_reduce(wish, reduce_operation="MAX")
        if wish.item() == SUPERSEDED:
            self.fence.look_together()
        self.stopped = bool(wish.item())
        return self.stopped

    def wants_requeue(self, state: State) -> bool:
        """Whether the run was stopped before its end."""
        return self.stopped and not (self.planned is not None and state.timestamp >= self.planned)


def any_rank_wants_to_stop(stop: StopRequest) -> bool:
    """The same question outside of training, over the ranks' own messages."""
    return any(dist.all_gather_object(stop.wanted))
