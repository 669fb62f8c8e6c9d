"""The watchdog: says what a run that stands still waits for, and ends it where that does not pass.

A thread of each rank. It looks each second at the rank's :mod:`~theworld.pulse` and at the other ranks' signs of life
(:mod:`.signs_of_ranks`), and it does what the main thread cannot while it waits:

- from ``watchdog.warn`` seconds without a batch on, it names each minute the loader or the rank that is waited for;
- after ``watchdog.abort`` seconds it writes the stacks to the log and ends the process with exit code 75, on every rank
  by the same limit. That holds for any backend, and comes long before torch's own ``dist_timeout``, which would end the
  run as a crash;
- when the run is to stop and the main thread waits for its loader, it wakes it, so that the ranks save and leave; and
  where a rank gives no sign of life, with which no checkpoint can be saved, it does not wait for the end of the grace.
"""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from theworld.checkpoint.fence import Fence
from theworld.cli import say_error
from theworld.config.schema import WatchdogConfig
from theworld.errors import EXIT_RUN_AGAIN, NotNow
from theworld.lease import FOLDER
from theworld.pulse import LOADER, SHOW_STACK, STANDARD_ERROR, TRAINING, WAKE, Pulse, pulse
from theworld.signals import StopRequest
from theworld.train.signs_of_ranks import Signs, name_silent

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
SAY_EVERY = 60.0
LOADER_MAY_TAKE = 3.0
"""Seconds that a loader which is waited for has left when the run is to stop."""
SHARE_OF_GRACE = 1 / 3
"""How long a stop waits for a rank that gives no sign of life. Composer's launcher kills after half of the default."""
LEAVE = 10.0
"""Seconds for what is written down before the process ends: the file system may be what does not answer."""
ECHO = 5.0
"""Seconds before the limit from which an error is taken for what another rank's end has caused."""


class Watchdog:
    """Watches over this rank.

    Args:
        limits: the section of the YAML; None: none, only a stop is helped.
        stop: whether the run is to stop.
        fence: of the save folder.
        save_folder: of the run.
        rank: this rank's number.
        ranks: how many there are.
        at_end: called with the reason before the watchdog ends a rank that says it.
        watched: the pulse of this process.
    """

    def __init__(
        self,
        limits: WatchdogConfig | None,
        stop: StopRequest,
        fence: Fence,
        save_folder: Path,
        rank: int,
        ranks: int,
        at_end: Callable[[str], None],
        watched: Pulse = pulse,
    ) -> None:
        self.limits, self.stop, self.fence = limits, stop, fence
        self.rank, self.ranks, self.at_end, self.pulse = rank, ranks, at_end, watched
        warn = limits.warn if limits else WatchdogConfig().warn
        self.signs = Signs(save_folder / FOLDER, lambda: fence.launch, rank, ranks, watched, warn)
        self.fed_at = time.monotonic()
        self.said_at = 0.0
        self.loader_since: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin; called in the main thread, which is the one that is woken."""
        self.pulse.begin("starting")
        self._handler_before = signal.signal(WAKE, self.pulse.interrupt)
        # Python's handlers run in the main thread when it gets on; here signals are heard of at once.
        self._heard, self._hears = os.pipe()
        os.set_blocking(self._hears, False)
        self._hears_before = signal.set_wakeup_fd(self._hears, warn_on_full_buffer=False)
        self.signs.start()
        self._thread.start()

    def close(self) -> None:
        """Watch no more; called in the main thread."""
        signal.set_wakeup_fd(self._hears_before)
        signal.signal(WAKE, self._handler_before)
        self._over.set()
        os.write(self._hears, b"\0")  # ends the thread's wait; loader workers may have the pipe too
        self._thread.join()
        os.close(self._hears)
        os.close(self._heard)
        self.signs.close()

    @property
    def still(self) -> float:
        """Seconds in which nothing has moved, planned waits left out."""
        return time.monotonic() - max(self.pulse.moved_at, self.fed_at)

    def ends_soon(self) -> bool:
        """Whether the limit is as good as reached, so that an error now comes from a rank that has ended by it."""
        return self.limits is not None and self.still >= self.limits.abort - min(ECHO, self.limits.abort / 4)

    def _run(self) -> None:
        while True:
            self._hear()
            if self._over.is_set():
                return
            self._help_to_stop()
            if self.limits is not None:
                self._look(self.limits)

    def _hear(self) -> None:
        """Wait until it is time to look, or for a signal, and take note of it."""
        if select.select([self._heard], [], [], LOOK_EVERY)[0]:
            for number in os.read(self._heard, 4096):
                self.stop.note(number)

    def _look(self, limits: WatchdogConfig) -> None:
        found = self.signs.found
        if self.pulse.doing.planned() or self.signs.planned_elsewhere():
            self.fed_at = time.monotonic()
            dead = {rank: since for rank, since in found.silent.items() if since >= limits.abort}
            if dead:
                self.end(f"{self.pulse.doing.what}: waiting for {name_silent(dead)}")
            return
        still = self.still
        if still >= limits.abort:
            self.end(f"no batch for {still:.0f} s: waiting for {self.waits()}")
        elif still >= limits.warn and self._not_said_of_late():
            self.said_at = time.monotonic()
            if self.speaks():
                log.warning("no batch for %.0f s: waiting for %s", still, self.waits())

    def _not_said_of_late(self) -> bool:
        return time.monotonic() - self.said_at >= SAY_EVERY or self.said_at < max(self.pulse.moved_at, self.fed_at)

    def waits(self) -> str:
        """What this rank waits for, in words."""
        doing = self.pulse.doing
        if doing.what == LOADER:
            return f"the loader (rank {self.rank}, {doing.detail()})"
        if self.ranks == 1:
            return f"the step of batch {self.pulse.batch + 1}" if doing.what == TRAINING else doing.what
        return self.signs.found.waits or f"other ranks (in {doing.what})"

    def speaks(self) -> bool:
        """Whether this rank is the one to say it: rank 0, the one that is waited for, or rank 1 where 0 is silent."""
        own = self.pulse.doing.what == LOADER
        return self.rank == 0 or own or (self.rank == 1 and 0 in self.signs.found.silent)

    def _help_to_stop(self) -> None:
        now = time.monotonic()
        if not self.pulse.interruptible:
            self.loader_since = None
        elif self.loader_since is None:
            self.loader_since = now
        if not self.stop.wanted:
            return
        if self.loader_since is not None and now - self.loader_since >= LOADER_MAY_TAKE:
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, WAKE)
        silent = self.signs.found.silent
        waited = time.time() - (self.stop.noted_at or time.time())
        if silent and waited >= self.stop.grace * SHARE_OF_GRACE:
            self.end(
                f"asked to stop ({self.stop.reason}), but no checkpoint can be saved without {name_silent(silent)}"
            )

    def end(self, reason: str) -> None:
        """Write the stacks and the reason, and end the process: its main thread cannot do it."""
        if self._over.is_set():  # the main thread has got on
            return
        if self.speaks():
            self._show_stacks()
            say_error(f"{reason}; the same command goes on from the newest checkpoint", self.rank)
        if self.speaks() or self.rank == 0:
            telling = threading.Thread(target=self.at_end, args=(reason,), daemon=True)
            telling.start()
            telling.join(LEAVE)
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(EXIT_RUN_AGAIN)

    def _show_stacks(self) -> None:
        """The stacks of this rank's threads, and of its loader's workers, which write them themselves."""
        sys.stderr.flush()
        faulthandler.dump_traceback(file=STANDARD_ERROR, all_threads=True)
        for child in multiprocessing.active_children():
            if child.pid is not None and self.pulse.doing.what == LOADER:
                os.kill(child.pid, SHOW_STACK)
        time.sleep(LOOK_EVERY / 2)


@contextmanager
def watching(dog: Watchdog) -> Iterator[None]:
    """Watch over a rank while this is open.

    Raises:
        NotNow: instead of an error that another rank's end by the same limit has caused.
    """
    dog.start()
    try:
        yield
    except NotNow:
        raise
    except Exception as error:
        if dog.ends_soon():
            raise NotNow(f"no batch for {dog.still:.0f} s: waiting for {dog.waits()}") from error
        raise
    finally:
        dog.close()


def tell(dog: Watchdog) -> dict[str, Any]:
    """What rank 0 says in the lease: what it does, what it knows of the ranks, the run's figures."""
    found = dog.signs.found
    return {
        **dog.signs.doing(),
        "found": {"silent": found.silent, "planned": found.planned, "waits": found.waits},
        "time": time.time(),
        "figures": dog.pulse.figures,
    }
