"""Opening Streaming's data sets beside other jobs, and clearing away what killed ones left in shared memory.

Streaming keeps small segments under ``/dev/shm`` whose names begin with the first number that is free. It looks for
that number and takes it in two steps, so that two jobs which start at the same moment may take the same one, and
after ``kill -9`` the segments stay. Here the user's jobs on a node open one after the other, and each writes down
which segments are its own, by inode, in a file that it keeps locked as long as it lives: what an unlocked file names
no longer belongs to anybody, and is removed. Nothing else is touched.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from composer.utils import dist
from filelock import FileLock, Timeout

from theworld.files import make_private

log = logging.getLogger(__name__)

SEGMENTS = Path("/dev/shm")
LOCK_SECONDS = 20.0
"""How long to wait for another job's opening, which takes a moment. Two jobs that share several nodes could each hold
one and wait for the other; then both go on, and only the protection against simultaneous openings is lost."""

_own_record: int | None = None
"""Descriptor of this process's record. Forked workers inherit it, so that the lock lasts as long as any of them."""


def records_folder() -> Path:
    """Where the user's jobs on this node find each other; the same for all, whatever their ``$TMPDIR``."""
    return SEGMENTS / f"theworld-{os.getuid()}"


@contextmanager
def one_opening_at_a_time(leader: bool) -> Iterator[None]:
    """All ranks enter together; while they are inside, no other job of this user opens a data set on their nodes.

    Args:
        leader: whether this rank is its node's first.
    """
    lock = None
    if leader and SEGMENTS.is_dir():
        make_private(records_folder())
        lock = FileLock(records_folder() / "opening.lock")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            log.warning("another job has been opening a data set for %d s; going on beside it", LOCK_SECONDS)
        remove_segments_of_the_dead()
    dist.barrier()
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def record_segments(prefix: int) -> None:
    """Write down that the segments with Streaming's number ``prefix`` are this process's."""
    global _own_record
    if not SEGMENTS.is_dir():
        return
    if _own_record is None:
        path = records_folder() / f"{os.getpid()}.{os.urandom(4).hex()}.json"
        _own_record = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(_own_record, fcntl.LOCK_EX)
        # Streaming removes its segments at a normal end, so nothing is left to remember.
        atexit.register(path.unlink, missing_ok=True)
    for segment in sorted(SEGMENTS.glob(f"{prefix:06}_*")):
        line = {"name": segment.name, "inode": segment.stat().st_ino}
        os.write(_own_record, (json.dumps(line) + "\n").encode())


def remove_segments_of_the_dead() -> None:
    """Remove the segments whose record no living process holds. Call it under :func:`one_opening_at_a_time`'s lock."""
    for record in sorted(records_folder().glob("*.json")):
        descriptor = os.open(record, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            for line in record.read_text(encoding="utf-8").splitlines():
                remove_segment(line)
            record.unlink()
        finally:
            os.close(descriptor)


def remove_segment(line: str) -> None:
    """Remove the segment that a record's line names, unless it has gone, or the name has passed to another."""
    try:
        known = json.loads(line)
        segment = SEGMENTS / str(known["name"])
        if segment.stat().st_ino == known["inode"]:
            segment.unlink()
            log.info("removed %s, left by a job that was killed", segment)
    except (ValueError, KeyError, FileNotFoundError) as error:
        # A line that the kill cut short, or a segment that Python's own resource tracker has removed.
        log.debug("nothing to remove for %r: %s", line, error)
