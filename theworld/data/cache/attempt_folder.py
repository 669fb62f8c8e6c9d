"""Names of an attempt's own for the cache of shards, and the removal of those whose attempt has ended."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from pathlib import Path

from filelock import FileLock


class AttemptFolder:
    """This attempt's own names for the cache folder: links in ``<cache>/.launches/<attempt>`` that lead to the cache.

    Streaming refuses a local folder that any living or killed process has registered in shared memory ("Reused local
    directory"). With names of its own each attempt starts at once, beside running jobs and after ``kill -9``, and may
    open a grown data set again, while the shards stay shared. An attempt holds a lock as long as it lives, its workers
    included; the names of attempts whose lock is free are removed.
    """

    def __init__(self, cache: Path) -> None:
        attempts = cache / ".launches"
        attempts.mkdir(parents=True, exist_ok=True)
        locks = cache / ".locks"
        locks.mkdir(exist_ok=True)
        with FileLock(locks / "launches.lock"):
            for old in attempts.glob("*.alive"):
                remove_if_dead(old)
            self.path = attempts / f"{socket.gethostname()}.{os.getpid()}.{os.urandom(4).hex()}"
            self.alive = self.path.with_name(f"{self.path.name}.alive")
            self.descriptor = os.open(self.alive, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
            self.path.mkdir()

    def remove(self) -> None:
        """Remove the names; the shards stay."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.alive.unlink(missing_ok=True)
        os.close(self.descriptor)


def remove_if_dead(alive: Path) -> None:
    """Remove an attempt's names if no process holds its lock, and it is this user's to remove."""
    try:
        descriptor = os.open(alive, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(alive.with_suffix(""), ignore_errors=True)
        alive.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def new_name(attempt: str, number: int, make: bool) -> str:
    """The attempt's ``number``-th name for the cache; the node's first rank makes it, the others only know it."""
    name = Path(attempt) / str(number)
    if make:
        name.symlink_to(Path("..", ".."), target_is_directory=True)
    return str(name)


def attempt_of(name: str) -> Path:
    """The attempt's folder that :func:`new_name` made this name in."""
    return Path(name).parent
