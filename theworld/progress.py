"""Progress of long work: a bar for a person at a terminal, a plain line each minute for a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

LINE_EVERY = 60.0
Item = TypeVar("Item")


class Progress:
    """How far a piece of work is. Subclasses say more with :meth:`note`.

    Args:
        total: how many there are to do.
        unit: what is counted, in the plural.
        name: what the work is called, in front of bar and line.
        line_every: seconds between lines.
    """

    of = "of"
    """Between what is done and the total; "of at most" where the total is a bound."""

    def __init__(self, total: int, unit: str, name: str = "", line_every: float = LINE_EVERY) -> None:
        self.total, self.unit, self.name, self.line_every = total, unit, name, line_every
        self.done = 0
        self.started = self.last_line = time.monotonic()
        self.bar = tqdm(
            total=total, desc=name or None, unit=f" {unit}", disable=None, smoothing=0.05, file=sys.stderr, leave=True
        )

    def add(self, count: int = 1) -> None:
        """Count this many more as done."""
        self.done += count
        self.bar.update(count)
        self.tick()

    def note(self, seconds: float) -> str:
        """What else to show, after so many seconds of work; "" for nothing."""
        return ""

    def tick(self) -> None:
        """Refresh the bar once a second; write the line when its time has come."""
        now = time.monotonic()
        if now - self.last_line < (self.line_every if self.bar.disable else 1.0):
            return
        self.last_line = now
        seconds = max(now - self.started, 1e-9)
        note = self.note(seconds)
        if not self.bar.disable:
            self.bar.set_postfix_str(note)
            return
        rate = self.done / seconds
        left = f"{(self.total - self.done) / rate / 60:,.0f} min left" if rate else "time left unknown"
        parts = [f"{self.done:,} {self.of} {self.total:,} {self.unit}", f"{rate:,.0f} {self.unit}/s", left, note]
        log.info("%s%s", f"{self.name}: " if self.name else "", ", ".join(part for part in parts if part))

    def follow(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items, each counted when the next one is asked for; closes at the end."""
        try:
            for item in items:
                yield item
                self.add()
        finally:
            self.close()

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()
