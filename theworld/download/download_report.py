"""What a download tells: progress while it runs, counts at the end."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from theworld.progress import LINE_EVERY, Progress

log = logging.getLogger(__name__)


@dataclass
class Report:
    """Counts of one run.

    Attributes:
        wanted: different images wanted.
        before: of these, there and whole when the run began.
        broken: files that were there but not whole.
        saved: images fetched by this run.
        from_tars: how many of these came in tars.
        missing: images that the server does not have, known before or new.
        failed: reason to number of images that could not be fetched this time.
        unusable: entries whose file name cannot be an image's.
        bytes: fetched into images.
        seconds: time the run took.
        stopped: why the run ended early, or "".
        broken_json: the line to show if the JSON is not JSON to its end.
        converted: samples written to shards.
    """

    wanted: int = 0
    before: int = 0
    broken: int = 0
    saved: int = 0
    from_tars: int = 0
    missing: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    unusable: int = 0
    bytes: int = 0
    seconds: float = 0.0
    stopped: str = ""
    broken_json: str | None = None
    converted: int = 0

    @property
    def left(self) -> int:
        """Images that the next run would ask for."""
        return self.wanted - self.before - self.saved - self.missing

    @property
    def complete(self) -> bool:
        """Whether everything that exists is there."""
        return not self.stopped and self.left <= 0

    def table(self) -> str:
        """The counts, a line each."""
        rows = [("images wanted", self.wanted), ("there before", self.before), ("fetched", self.saved)]
        rows += [("  from tars", self.from_tars)] * bool(self.from_tars)
        rows += [("written to shards", self.converted)] * bool(self.converted)
        rows += [("missing for good", self.missing), ("still to fetch", self.left)]
        rows += [("broken files replaced", self.broken)] * bool(self.broken)
        rows += [("entries without a usable file name", self.unusable)] * bool(self.unusable)
        rows += [(f"  failed: {reason}", count) for reason, count in self.failed.most_common(5)]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {count:>10,}" for name, count in rows]
        if self.saved:
            rate = f"{self.saved / self.seconds:,.0f} images/s, {self.bytes / 1e6 / self.seconds:,.1f} MB/s"
            lines.append(f"{self.seconds:.1f} s, {rate}")
        if self.stopped:
            lines.append(f"stopped: {self.stopped}")
        lines.append("complete" if self.complete else "not complete yet: run the same command again, it goes on")
        return "\n".join(lines)


class DownloadProgress(Progress):
    """Progress in images, with what is missing or failed and the disk space left.

    Args:
        total: images to fetch.
        folder: where they go.
        line_every: seconds between lines.
    """

    def __init__(self, total: int, folder: Path, line_every: float = LINE_EVERY) -> None:
        super().__init__(total, "images", line_every=line_every)
        self.folder = folder
        self.missing = self.failed = self.bytes = 0

    def took(self, saved: int, missing: int, failed: int, size: int) -> None:
        """What has happened since the last call."""
        self.missing, self.failed, self.bytes = self.missing + missing, self.failed + failed, self.bytes + size
        self.add(saved + missing)

    def note(self, seconds: float) -> str:
        free = shutil.disk_usage(self.folder).free / 1e9
        return (
            f"{self.bytes / 1e6 / seconds:,.1f} MB/s, {self.missing:,} missing, {self.failed:,} failed, "
            f"{free:,.0f} GB of disk left"
        )
