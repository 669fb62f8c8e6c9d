"""Names of a launch's own for the cache of shards, and the removal of those whose launch is no more."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from pathlib import Path

from filelock import FileLock


class LaunchFolder:
    """This launch's own names for the cache folder: links in ``<cache>/.launches/<launch>`` that lead to the cache.

    Streaming refuses a local folder that any living or killed process has registered in shared memory ("Reused local
    directory"). With names of its own each launch starts at once, beside running jobs and after ``kill -9``, and may
    open a grown data set again, while the shards stay shared. A launch holds a lock as long as it lives, its workers
    included; the names of launches whose lock is free are removed.
    """

    def __init__(self, cache: Path) -> None:
        launches = cache / ".launches"
        launches.mkdir(parents=True, exist_ok=True)
        locks = cache / ".locks"
        locks.mkdir(exist_ok=True)
        with FileLock(locks / "launches.lock"):
            for old in launches.glob("*.alive"):
                remove_if_dead(old)
            self.path = launches / f"{socket.gethostname()}.{os.getpid()}.{os.urandom(4).hex()}"
            self.alive = self.path.with_name(f"{self.path.name}.alive")
            self.descriptor = os.open(self.alive, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
            self.path.mkdir()

    def remove(self) -> None:
        """Remove the names; the shards stay."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.alive.unlink(missing_ok=True)
        os.close(self.descriptor)


def remove_if_dead(alive: Path) -> None:
    """Remove a launch's names if no process holds its lock."""
    descriptor = os.open(alive, os.O_WRONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(alive.with_suffix(""), ignore_errors=True)
        alive.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def new_name(launch: str, number: int, make: bool) -> str:
    """The launch's ``number``-th name for the cache; the node's first rank makes it, the others only know it."""
    name = Path(launch) / str(number)
    if make:
        name.symlink_to(Path("..", ".."), target_is_directory=True)
    return str(name)


def launch_of(name: str) -> Path:
    """The launch's folder that :func:`new_name` made this name in."""
    return Path(name).parent
