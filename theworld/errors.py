"""Errors that a user can act on, and the exit codes of every command."""

from __future__ import annotations

import re
from collections.abc import Iterator

OF_RANK = re.compile(r"^rank \d+: ")
MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

EXIT_DONE = 0
EXIT_BROKEN_PROMISE = 1
EXIT_BAD_INPUT = 2
EXIT_RUN_AGAIN = 75
"""Not complete yet: the same command goes on (EX_TEMPFAIL of sysexits.h)."""
EXIT_REQUEUE = 85
"""The trainer was stopped by a signal, has saved, and wants to be started again."""


class UserError(Exception):
    """Bad input or configuration: one line that says what, where, and what to do.

    Commands print it without a traceback and leave with :attr:`exit_code` (see :func:`theworld.cli.run`).
    """

    exit_code = EXIT_BAD_INPUT
    on_all_ranks = False
    """Every rank raises the same, so that rank 0 says it for all."""


class NotNow(UserError):
    """Nothing is wrong, but it cannot go on now: a remote does not answer, the data are not there yet.

    The same command goes on later; job scripts requeue with a pause.
    """

    exit_code = EXIT_RUN_AGAIN


class DamagedShard(NotNow):
    """The remote answers, and what it gives for a shard is not what the index says.

    Half of a shard may be visible for a while; the same fault at start after start is for good.

    The text is all that comes out of a loader worker; it begins as :meth:`found` makes it.
    """

    @classmethod
    def found(cls, shard: object, fault: str) -> DamagedShard:
        """Name a shard and what is wrong with it."""
        return cls(f"{shard}: damaged where it lies, {fault}; convert/verify.py checks the data set")

    @property
    def what(self) -> str:
        """Shard and fault alone, the same in each process that finds it."""
        return OF_RANK.sub("", str(self).partition(";")[0])


class Stopped(UserError):
    """The run is to stop and leaves a wait that would outlast the grace, or an evaluation; the training state is that
    of a finished batch."""

    exit_code = EXIT_REQUEUE


class RunFailed(UserError):
    """The run has ended in a way that is nobody's fault in the code and not in the input either: a process was killed,
    the loss is no longer a number."""

    exit_code = EXIT_BROKEN_PROMISE


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from; of one that stands for several ranks' (torch's CheckpointException) theirs
    too."""
    current: BaseException | None = error
    while current is not None:
        yield current
        for of_rank, *_ in getattr(current, "failures", {}).values():
            yield from causes(of_rank)
        current = current.__cause__ or current.__context__


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says anything; its class where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def describe(error: BaseException) -> str:
    """An error as a reason that can be kept and counted: its class and first line, the same in every process."""
    line = MEMORY_ADDRESS.sub("", first_line(error))
    name = type(error).__name__
    return line if line == name else f"{name}: {line}"
