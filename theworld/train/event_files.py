"""TensorBoard's event files where the disk may be full: metrics are left out, and training goes on."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from composer.core import State
from composer.loggers import Logger

from theworld.disk_space import FULL, fault_of_disk, in_megabytes
from theworld.files import nearest_folder
from theworld.train.callbacks.answer_table import markdown
from theworld.train.tensorboard_of_start import TensorboardOfStart

log = logging.getLogger(__name__)

LEAST_FREE = 1 << 20
"""Bytes that are left for the ledger, whose lines must be written."""


class EventFiles(TensorboardOfStart):
    """The logger, which would end the run with the first event that the disk has no room for."""

    def __init__(self, log_dir: str | None = None, flush_interval: int = 100, rank_zero_only: bool = True) -> None:
        super().__init__(log_dir or "tensorboard_logs", flush_interval, rank_zero_only)
        self.full = False

    def init(self, state: State, logger: Logger) -> None:
        self.run_name = state.run_name
        self._if_room(lambda: None)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._if_room(lambda: super(EventFiles, self).log_metrics(metrics, step))

    def log_images(self, *arguments: Any, **settings: Any) -> None:
        self._if_room(lambda: super(EventFiles, self).log_images(*arguments, **settings))

    def log_table(
        self, columns: list[str], rows: list[list[Any]], name: str = "Table", step: int | None = None
    ) -> None:
        def write() -> None:
            if self.writer is not None:
                self.writer.add_text(name, markdown(columns, rows), global_step=step)

        self._if_room(write)

    def eval_end(self, state: State, logger: Logger) -> None:
        self._if_room(lambda: super(EventFiles, self).eval_end(state, logger))

    def _flush(self, logger: Logger) -> None:
        self._if_room(lambda: super(EventFiles, self)._flush(logger))

    def close(self, state: State, logger: Logger) -> None:
        if self.writer is not None:
            self._if_room(lambda: super(EventFiles, self).close(state, logger))

    def _if_room(self, write: Callable[[], None]) -> None:
        """Call what writes, unless the disk is full."""
        if self._is_full():
            return
        try:
            if self.writer is None:
                self._initialize_summary_writer()
            write()
        except OSError as error:
            fault = fault_of_disk(error)
            if fault is None or fault.errno not in FULL:
                raise
            self._say(str(fault.strerror))
            if self.writer is not None:
                self.writer.file_writer = self.writer.all_writers = None  # its thread has died

    def _is_full(self) -> bool:
        assert self.log_dir is not None
        disk = shutil.disk_usage(nearest_folder(Path(self.log_dir)))
        full = disk.total > 0 and disk.free < LEAST_FREE
        if full:
            self._say(f"{in_megabytes(disk.free)} are free")
        self.full = full
        return full

    def _say(self, why: str) -> None:
        if not self.full:
            log.warning("%s: metrics are not written until there is room (%s)", self.log_dir, why)
        self.full = True
