"""What the training process is doing: where its main thread stands, and since when nothing has moved.

One pulse a process, :data:`pulse`, written by the main thread wherever it may wait, and read by the watchdog
(:mod:`theworld.train.watchdog`) and by the lease, whose file tells it to everybody else. No torch here: whoever waits
can say so.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

SHOW_STACK = WAKE = signal.SIGURG
"""Sent by the watchdog, to a loader worker and to the main thread; a process without a handler for it ignores it."""
STANDARD_ERROR = 2
"""Where stacks are written to, whatever stands in for ``sys.stderr``."""
LOADER = "loader"
RANKS = "ranks"
TRAINING = "training"


class Interrupted(BaseException):
    """Raised in a main thread that waits for its loader, or with patience, when the run is to stop. No ``Exception``:
    nothing that the wait goes through may take it for a fault of its own."""


def nothing() -> str:
    return ""


def never() -> bool:
    return False


def always() -> bool:
    return True


@dataclass(frozen=True)
class Doing:
    """What the main thread is at.

    Attributes:
        what: in a word or two, as the log names it.
        planned: whether that may last, so that no limit holds for it now.
        detail: more about it, looked up when it is asked for.
    """

    what: str
    planned: Callable[[], bool] = never
    detail: Callable[[], str] = nothing


class Pulse:
    """What the main thread is at; only it writes, any thread may read.

    Attributes:
        doing: now.
        batch: batches done by the run.
        batch_at: when the last batch, of training or evaluation, was done; of the monotonic clock, in seconds.
        moved_at: the same, but the end of a planned wait counts too.
        loader_seconds: what all waits for the loader, the other ranks' included, have taken together.
        interruptible: whether an :class:`Interrupted` may be raised where the main thread is.
        figures: what the run tells of itself.
    """

    def __init__(self) -> None:
        self.doing = Doing("starting", planned=always)
        self.batch = 0
        self.batch_at = self.moved_at = time.monotonic()
        self.loader_seconds = 0.0
        self.interruptible = False
        self.figures: dict[str, Any] = {}

    @contextmanager
    def at(
        self,
        what: str,
        planned: Callable[[], bool] = never,
        detail: Callable[[], str] = nothing,
        interruptible: bool = False,
    ) -> Iterator[None]:
        """The main thread is at something for as long as this is open; in other threads nothing is noted."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before, could_be_interrupted = self.doing, self.interruptible
        self.interruptible = False
        if before.planned():
            self.moved_at = time.monotonic()
        self.doing = Doing(what, planned, detail)
        try:
            self.interruptible = interruptible
            yield
        finally:
            self.interruptible = False
            if self.doing.planned():
                self.moved_at = time.monotonic()
            self.doing = before
            self.interruptible = could_be_interrupted

    def batch_done(self, batch: int | None = None) -> None:
        """A batch is over; of training, with its number, or of evaluation."""
        self.batch_at = self.moved_at = time.monotonic()
        if batch is not None:
            self.batch = batch
            self.doing = Doing(TRAINING)

    def begin(self, what: str) -> None:
        """What is done from now on, until the next batch ends, is no training, and may last."""
        self.batch_at = self.moved_at = time.monotonic()
        self.doing = Doing(what, planned=always)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signal that the watchdog sends to the main thread.

        Raises:
            Interrupted: it is where that can be raised.
        """
        if self.interruptible:
            raise Interrupted


pulse = Pulse()
