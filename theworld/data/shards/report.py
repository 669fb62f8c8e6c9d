"""What a conversion tells: progress while it runs, counts at the end."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from tqdm import tqdm

LINE_EVERY = 60.0
NO_IMAGE = "image not there yet"

logger = logging.getLogger(__name__)


@dataclass
class Report:
    """Counts of one conversion.

    Attributes:
        entries: entries in the conversations file.
        images: image files found.
        written: samples in the generations that this run added, those of shards finished by a killed run included.
        held_out: how many of these went to the held-out set.
        before: samples that were there already.
        left_out: reason to number of entries that did not become samples.
        bytes: image bytes written by this run.
        seconds: time the run took.
        broken: the line to show if the conversations file is not JSON to its end.
        generations: names of the generations that this run added.
    """

    entries: int = 0
    images: int = 0
    written: int = 0
    held_out: int = 0
    before: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    seconds: float = 0.0
    broken: str | None = None
    generations: list[str] = field(default_factory=list)

    def table(self) -> str:
        """The counts, a line each."""
        rows = [("entries read", self.entries), ("images found", self.images), ("already there", self.before)]
        rows.append(("written", self.written))
        if self.held_out:
            rows.append(("  of these held out", self.held_out))
        rows += [(f"left out: {reason}", count) for reason, count in sorted(self.left_out.items()) if count]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {count:>10,}" for name, count in rows]
        if self.written:
            rate = f"{self.written / self.seconds:,.0f} images/s, {self.bytes / 1e6 / self.seconds:,.0f} MB/s"
            lines.append(f"{self.seconds:.1f} s, {rate}; new: {', '.join(self.generations)}")
        else:
            lines.append("nothing new to convert")
        return "\n".join(lines)


class Progress:
    """A bar on a terminal, a line each minute otherwise.

    Args:
        samples: most samples there can be to write.
        line_every: seconds between lines.
    """

    def __init__(self, samples: int, line_every: float = LINE_EVERY) -> None:
        self.total, self.line_every = samples, line_every
        self.samples = self.bytes = self.json_bytes = 0
        self.started = self.last_line = time.monotonic()
        self.bar = tqdm(total=samples, unit=" images", disable=None, smoothing=0.05, file=sys.stderr)

    def read(self, json_bytes: int) -> None:
        """Bytes of the conversations file read so far."""
        self.json_bytes = json_bytes
        if time.monotonic() - self.last_line > self.line_every:
            self.tick()

    def add(self, samples: int, size: int) -> None:
        """Samples and image bytes that were written."""
        self.samples += samples
        self.bytes += size
        self.bar.update(samples)

    def tick(self) -> None:
        """Refresh; prints the line when a minute has gone by."""
        now = time.monotonic()
        seconds = max(now - self.started, 1e-9)
        megabytes = self.bytes / 1e6 / seconds
        if not self.bar.disable:
            self.bar.set_postfix_str(f"{megabytes:.0f} MB/s, JSON {self.json_bytes / 1e9:.1f} GB")
        elif now - self.last_line > self.line_every:
            rate = self.samples / seconds
            left = f"{(self.total - self.samples) / rate / 60:.0f} min left" if rate else "time left unknown"
            logger.info(
                "%s of at most %s images, %.0f images/s, %.0f MB/s, %s, JSON %.1f GB",
                f"{self.samples:,}",
                f"{self.total:,}",
                rate,
                megabytes,
                left,
                self.json_bytes / 1e9,
            )
            self.last_line = now

    def close(self) -> None:
        self.bar.close()
