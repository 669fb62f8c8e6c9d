"""The wish to stop: a signal from SLURM or a person, or the end of the job's time.

A handler only takes note; the training loop looks at the note between batches. No torch here: the handlers must be in
place before the heavy imports begin, since a job may be preempted during them.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from theworld.errors import UserError

DEFAULT_SIGNALS = ("SIGTERM", "SIGUSR1")
END_VARIABLE = "THEWORLD_JOB_END"
"""Environment: when the job's time is over, in seconds since 1970; set by slurm/train.sbatch."""
GRACE_VARIABLE = "THEWORLD_GRACE"
"""Environment: seconds between warning and kill; set by slurm/train.sbatch."""
DEFAULT_GRACE = 60.0
LEAVING_SECONDS = 5.0


class StopRequest:
    """Remembers the first reason to stop.

    Args:
        names: signals, for example ``SIGUSR1``.
    """

    def __init__(self, names: Sequence[str] = DEFAULT_SIGNALS) -> None:
        self.numbers: list[signal.Signals] = []
        self.reason: str | None = None
        self.noted_at: float | None = None
        self.grace = DEFAULT_GRACE
        self.stop_at: float | None = None
        self.add(names)

    def add(self, names: Sequence[str]) -> None:
        """Listen to these as well.

        Raises:
            UserError: there is no such signal, or it cannot be caught.
        """
        for name in names:
            number = getattr(signal, name, None)
            if not isinstance(number, signal.Signals) or number in (signal.SIGKILL, signal.SIGSTOP):
                raise UserError(
                    f"preemption.signals: {name!r} is not a signal that can be caught; use SIGUSR1, for example"
                )
            if number not in self.numbers:
                self.numbers.append(number)

    def install(self) -> None:
        """Take over the signals, whoever had them."""
        for number in self.numbers:
            signal.signal(number, self._note)

    def ignore(self) -> None:
        """Ignore the signals: the run is over and only its process has still to end.

        Python gives its own handlers up before the process is gone, so that a late signal would still kill it and
        change its exit code; ignored ones stay ignored to the end.
        """
        ignore_stop_signals(self.numbers)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.note(number)

    def note(self, number: int) -> None:
        """A signal has come; of any thread, since Python runs its handlers in the main one only, and that may wait in
        a library for minutes."""
        if number in self.numbers:
            self._remember(signal.Signals(number).name)

    def _remember(self, reason: str) -> None:
        if self.reason is None:
            self.noted_at = time.time()
            self.reason = reason

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Signals that come while this is open are delivered when it closes, to our handlers.

        Importing composer sets handlers that exit at once and lose everything since the last save.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self.numbers)
        try:
            yield
        finally:
            self.install()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def read_job_end(self, grace: float | None) -> None:
        """Stop by itself ``grace`` seconds before the job's time is over, should no signal come.

        Args:
            grace: null in the YAML: what the job script found out, else a minute.

        Raises:
            UserError: the job is too short to train at all; started again and again it would get nowhere.
        """
        self.grace = margin = grace if grace is not None else float(os.environ.get(GRACE_VARIABLE) or DEFAULT_GRACE)
        end = os.environ.get(END_VARIABLE)
        if end:
            self.stop_at = float(end) - margin
            left = float(end) - time.time()
            if left <= margin:
                raise UserError(
                    f"preemption.grace: {margin:.0f} s are kept for saving, but the job has only {max(left, 0):.0f} s; "
                    "give it more time (sbatch --time) or lower the key"
                )

    @property
    def wanted(self) -> bool:
        """Whether this process has a reason to stop."""
        if self.reason is None and self.stop_at is not None and time.time() >= self.stop_at:
            self._remember("the job's time is nearly over")
        return self.reason is not None

    @property
    def seconds_of_job(self) -> float:
        """What is left of the job's time, some seconds for leaving taken off; endless if it has no limit."""
        if self.stop_at is None:
            return math.inf
        return max(self.stop_at + self.grace - time.time() - LEAVING_SECONDS, 0.0)

    @property
    def seconds_left(self) -> float:
        """What is left of the grace, some seconds for leaving taken off."""
        since = self.noted_at if self.noted_at is not None else time.time()
        return max(since + self.grace - time.time() - LEAVING_SECONDS, 0.0)


def ignore_stop_signals(numbers: Sequence[int]) -> None:
    """For loader workers: SLURM signals every process of a step, and a worker that dies takes its rank with it before
    the rank can save."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
