"""Patience with what does not answer now: try again with growing pauses, say so each minute, then leave it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from theworld.errors import NotNow, Stopped
from theworld.pulse import Interrupted, always, pulse

log = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
SAY_EVERY = 60.0

Found = TypeVar("Found")


def patiently(attempt: Callable[[], Found], what: str, patience: float) -> Found:
    """What ``attempt`` gives, as soon as it can.

    Args:
        attempt: raises :class:`~theworld.errors.NotNow` when it cannot now; any other error is passed on.
        what: what is waited for, as the log names it.
        patience: seconds after which the last error is passed on.

    Raises:
        NotNow: it could not for so long, of the class that ``attempt`` raised.
        Stopped: in the main thread, if the run is to stop meanwhile.
    """
    try:
        with pulse.at(f"patience for {what}", planned=always, interruptible=True):
            return _patiently(attempt, what, patience)
    except Interrupted:
        raise Stopped(f"stopped while waiting for {what}") from None


def _patiently(attempt: Callable[[], Found], what: str, patience: float) -> Found:
    begun = time.monotonic()
    said, pause = -SAY_EVERY, FIRST_PAUSE
    while True:
        try:
            with said_each_minute(what, begun):
                return attempt()
        except NotNow as error:
            waited = time.monotonic() - begun
            if waited >= patience:
                raise type(error)(f"{error}; waited for {waited:.0f} s") from error
            if waited - said >= SAY_EVERY:
                said = waited
                log.warning("waiting for %s since %.0f s (%s)", what, waited, error)
        time.sleep(min(pause, max(begun + patience - time.monotonic(), 0.0)))
        pause = min(2 * pause, LONGEST_PAUSE)


@contextmanager
def said_each_minute(what: str, begun: float) -> Iterator[None]:
    """Log the wait while an attempt does not return: a store that accepts the request and stays silent.

    Args:
        what: what is waited for.
        begun: when the waiting began, by the monotonic clock.
    """
    over = threading.Event()

    def say() -> None:
        while not over.wait(SAY_EVERY):
            log.warning("waiting for %s since %.0f s (no answer)", what, time.monotonic() - begun)

    threading.Thread(target=say, name="patience", daemon=True).start()
    try:
        yield
    finally:
        over.set()
