"""Straight to shards: images wait in a spool of limited size, are converted, and removed once they are in shards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from theworld.data.entries.images import positions
from theworld.data.entries.scan import scan_images
from theworld.data.shards.convert import convert
from theworld.download.download import Download
from theworld.download.download_plan import converted_keys
from theworld.download.download_settings import MEAN_BYTES
from theworld.download.fetch import Outcome, Task
from theworld.errors import UserError

log = logging.getLogger(__name__)


class SpooledDownload(Download):
    """A download whose images end up in ``convert.out``. Each spoolful becomes a generation.

    A kill leaves whole images in the spool; the next run converts them first.
    """

    spooled = 0
    """Bytes in the spool."""

    def _prepare(self) -> None:
        self._convert()

    def _fetch_images(self) -> None:
        """Fetch a spoolful, convert it, and again; what failed is tried once more as long as that brings something."""
        while self.left.any() and not self._stop_asked():
            saved = self.report.saved
            self.report.failed.clear()
            for outcomes in self.workers.fetch(self._tasks()):
                self._take(outcomes)
            if not self._stop_asked():
                self._convert()
            if self.report.saved == saved:
                return

    def _tasks(self) -> Iterator[Task]:
        for task in super()._tasks():
            if self.spooled + self.workers.waiting * MEAN_BYTES >= self.settings.spool_limit:
                return
            yield task

    def _remember(self, saved: list[Outcome]) -> None:
        self.spooled += sum(outcome.size for outcome in saved)

    def _convert(self) -> None:
        """Write what is in the spool to shards, then remove it."""
        spool = self.settings.spool
        if not len(scan_images(spool)):
            return
        try:
            done = convert(replace(self.settings.convert, images=str(spool), image_folders=None))
        except KeyboardInterrupt:  # its own handler of SIGTERM; the next run goes on with it
            self.report.stopped = "SIGTERM"
            return
        self.report.converted += done.written
        scan = scan_images(spool)
        _, used = positions(converted_keys(self.settings), scan.keys)
        for row in np.flatnonzero(used):
            (spool / scan.path(int(row))).unlink()
        self.spooled = 0
        unused = np.flatnonzero(~used)
        if len(unused):
            raise UserError(
                f"{spool}: {len(unused):,} images such as {scan.path(int(unused[0]))} did not go into shards: either "
                f"{self.settings.convert.json} has no usable entry for them, or convert.num_samples is reached; "
                "remove them, or name fewer in download.list"
            )
