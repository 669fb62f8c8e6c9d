"""Progress of long work: a bar for a person at a terminal, a plain line each minute for a log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

LINE_EVERY = 60.0
LOOK_EVERY = 0.2
"""Seconds between looks at a count that somebody else keeps."""
Item = TypeVar("Item")


class Progress:
    """How far a piece of work is. Subclasses say more with :meth:`note`.

    Args:
        total: how many there are to do.
        unit: what is counted, in the plural.
        name: what the work is called, in front of bar and line.
        line_every: seconds between lines.
        bar: whether to show a bar where there is a terminal; else only lines, for what goes on beside something else.
    """

    of = "of"
    """Between what is done and the total; "of at most" where the total is a bound."""
    in_bytes = False
    """Whether bytes are counted, and the unit is MB."""

    def __init__(self, total: int, unit: str, name: str = "", line_every: float = LINE_EVERY, bar: bool = True) -> None:
        self.total, self.unit, self.name, self.line_every = total, unit, name, line_every
        self.done = 0
        self.started = self.last_line = time.monotonic()
        self.bar = self._make_bar(disable=None if bar else True)

    def _make_bar(self, disable: bool | None) -> tqdm[Any]:
        return tqdm(
            total=self.total,
            initial=self.done,
            desc=self.name or None,
            unit=" B" if self.in_bytes else f" {self.unit}",
            unit_scale=self.in_bytes,
            disable=disable,
            smoothing=0.05,
            file=sys.stderr,
            leave=True,
        )

    def show(self) -> None:
        """Show a bar from now on, where there is a terminal, if there was to be none."""
        if self.bar.disable:
            self.bar = self._make_bar(disable=None)

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
        scale = 1e-6 if self.in_bytes else 1
        done, total = (f"{count * scale:,.0f}" for count in (self.done, self.total))
        speed = rate * scale
        told = f"{speed:,.0f}" if speed >= 10 or not speed else f"{speed:.2g}"
        parts = [f"{done} {self.of} {total} {self.unit}", f"{told} {self.unit}/s", left, note]
        log.info("%s%s", f"{self.name}: " if self.name else "", ", ".join(part for part in parts if part))

    def follow(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items, each counted when the next one is asked for; closes at the end."""
        try:
            for item in items:
                yield item
                self.add()
        finally:
            self.close()

    @contextmanager
    def watch(self, count: Callable[[], int]) -> Iterator[None]:
        """Follow a count that somebody else keeps for as long as this is open, then close; all is done if it ends well.

        Args:
            count: what is done by now; called in a thread.
        """
        over = threading.Event()

        def look() -> None:
            while not over.wait(LOOK_EVERY):
                self._reach(count())

        thread = threading.Thread(target=look, name="progress", daemon=True)
        thread.start()
        try:
            yield
            over.set()
            thread.join()
            self._reach(self.total)
        finally:
            over.set()
            thread.join()
            self.close()

    def _reach(self, count: int) -> None:
        self.add(min(max(count, self.done), self.total) - self.done)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


class BytesProgress(Progress):
    """Progress in bytes, shown in MB."""

    in_bytes = True

    def __init__(self, total: int, name: str, line_every: float = LINE_EVERY, bar: bool = True) -> None:
        super().__init__(total, "MB", name, line_every, bar)
