"""Random numbers that go on where the checkpoint left them."""

from __future__ import annotations

from typing import Any

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils.reproducibility import load_rng_state


class RandomState(Callback):
    """Restores the generators before the first batch after a resume in the middle of a pass.

    Composer (0.32) restores them at the start of an epoch, or when it skips batches itself; a data set that keeps its
    own place is neither, so that dropout and the like would begin anew.

    Args:
        saved: the generators' states of each rank, as in the checkpoint.
    """

    def __init__(self, saved: list[dict[str, Any]]) -> None:
        self.saved: list[dict[str, Any]] | None = saved

    def batch_start(self, state: State, logger: Logger) -> None:
        if self.saved is not None:
            load_rng_state(self.saved)
            self.saved = None
