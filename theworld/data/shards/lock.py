"""One converter per output folder."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from theworld.errors import UserError

logger = logging.getLogger(__name__)


@contextmanager
def exclusive_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file; the kernel lets it go when the process ends, however it ends.

    Who may write to the folder may lock it: the file's mode is the umask's.

    Raises:
        UserError: another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 100, 0).decode("utf-8", "replace").strip()
            raise UserError(f"{what} is being written by another converter ({owner}); wait for it to end") from error
        except OSError as error:  # a file system without locks
            logger.warning("%s: cannot lock (%s): make sure that no other converter runs", path, error.strerror)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
