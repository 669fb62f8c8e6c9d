"""A pass keeps the shuffle that it was begun with; ``config.yaml`` says what is in force if the YAML is another."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from composer.core import Callback, State
from composer.loggers import Logger

from theworld.checkpoint.fence import Fence
from theworld.data.batches.passes import PassDataset

log = logging.getLogger(__name__)


class SettingsInForce(Callback):
    """Writes the configuration anew when a checkpoint's pass goes on in its own way, and when that pass has ended.

    Args:
        dataset: of the pass.
        write: writes the configuration with these settings of ``train_loader.dataset``.
        fence: keeps this start from writing when a newer one has begun.
    """

    def __init__(self, dataset: PassDataset, write: Callable[[dict[str, Any]], None], fence: Fence) -> None:
        self.dataset = dataset
        self.write = write
        self.fence = fence
        self.written: dict[str, Any] = {}

    @property
    def kept(self) -> dict[str, Any]:
        """What the pass was begun with, where the run's settings are others by now."""
        wanted = self.dataset.wanted_shuffle.settings()
        return {key: value for key, value in self.dataset.shuffle.settings().items() if value != wanted[key]}

    def fit_start(self, state: State, logger: Logger) -> None:
        kept, wanted = self.kept, self.dataset.wanted_shuffle.settings()
        if kept:
            log.info(
                "train_loader.dataset: until the pass ends it keeps %s",
                ", ".join(f"{key}={value} (not {wanted[key]})" for key, value in kept.items()),
            )
        self._write_changes()

    def epoch_end(self, state: State, logger: Logger) -> None:
        self._write_changes()

    def _write_changes(self) -> None:
        kept = self.kept
        if kept != self.written:
            self.fence.look_together()
            self.write(kept)
            self.written = kept
