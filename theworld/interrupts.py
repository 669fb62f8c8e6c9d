"""Ctrl-C and SIGTERM in a process whose threads share locks: never raised where one of them would stay locked.

Python raises KeyboardInterrupt between two steps of the main thread, whatever it is in. ``concurrent.futures.wait``
locks its futures in a loop; raised in there, it leaves some locked, and the thread that has such a future's result
waits for ever, and whoever waits for that thread.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class _Interrupts:
    """Of this process: how many want to be left alone, and whether a signal came meanwhile."""

    def __init__(self) -> None:
        self.held, self.noted = 0, False

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.held and not self.noted:
            self.noted = True
            return
        raise KeyboardInterrupt  # at once, also if it is the second one: somebody is in a hurry


_interrupts = _Interrupts()


@contextmanager
def stop_on_signal() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does, and both respect :func:`held_back`.

    A Ctrl-C that the caller, or who started the process, has taken over or ignores stays theirs; not what importing
    Composer has made of it, which exits wherever the process is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM]
    own = signal.getsignal(signal.SIGINT)
    if own is signal.default_int_handler or getattr(own, "__module__", "").startswith("composer."):
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, _interrupts.note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """A first signal that comes in here is raised at the end of it; for calls that take locks which threads share."""
    _interrupts.held += 1
    try:
        yield
    finally:
        _interrupts.held -= 1
        if _interrupts.noted and not _interrupts.held:
            _interrupts.noted = False
            raise KeyboardInterrupt
