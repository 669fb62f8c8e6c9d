"""Random numbers that go on where the checkpoint left them."""

from __future__ import annotations

from typing import Any

from composer import Trainer
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils.reproducibility import load_rng_state
from torch import Tensor

from theworld.checkpoint.random_states import unpack_random_states


class RandomState(Callback):
    """Restores the generators before the first batch after a resume in the middle of a pass.

    Composer (0.32) restores them at the start of an epoch, or when it skips batches itself; a data set that keeps its
    own place is neither, so that dropout and the like would start over.

    Args:
        saved: the generators' states of each rank, as in the checkpoint.
    """

    def __init__(self, saved: list[dict[str, Any]]) -> None:
        self.saved: list[dict[str, Any]] | None = saved

    def batch_start(self, state: State, logger: Logger) -> None:
        if self.saved is not None:
            load_rng_state(self.saved)
            self.saved = None


def restore_random_states(trainer: Trainer) -> None:
    """See that the generators go on where the checkpoint that the trainer has loaded left them.

    A private name: Composer restores what it holds at the start of an epoch only, and offers no other way.
    """
    if isinstance(trainer._rng_state, Tensor):
        trainer._rng_state = unpack_random_states(trainer._rng_state)
    if trainer._rng_state is not None and int(trainer.state.timestamp.batch_in_epoch) > 0:
        trainer.state.callbacks.append(RandomState(trainer._rng_state))
