"""Worker processes: they leave Ctrl-C to their parent, and do not outlive it."""

from __future__ import annotations

import errno
import multiprocessing
import multiprocessing.queues
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any


def leave_interrupts_to_parent() -> None:
    """In a worker: Ctrl-C reaches every process of the terminal; the parent says what to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_with_parent(*_: object) -> None:
    """In a worker: end at once when the parent does, killed ones included, which cannot tell their workers to stop.

    Takes and ignores what a pool or a data loader passes to its initialiser.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in worker processes only"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def end_with_lost_batch() -> None:
    """In a worker of a data loader: end where a batch cannot be handed over, so that the loader says that it is dead.

    Batches lie in shared memory, and where that is full torch 2.7 ends the worker with a bus error. Newer ones find it
    out before and raise; but the thread of Python's queue in which they do so only prints the error, drops the batch
    and goes on, and whoever waits for the batch waits for ever. Where a worker may open no more files, all versions do
    that. The exit code is :data:`errno.ENOSPC` or :data:`errno.EMFILE` for these two, 1 for anything else.
    """

    def end(error: Exception, _: object) -> None:
        sys.stderr.write(f"a loader worker cannot hand over a batch: {type(error).__name__}: {error}\n")
        sys.stderr.flush()
        known = (errno.EMFILE, errno.ENOSPC)
        os._exit(next((number for number in known if os.strerror(number) in str(error)), 1))

    # The hook that Python has for it, of concurrent.futures; a private name.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(end)  # pyright: ignore


def end_broken(pool: ProcessPoolExecutor) -> None:
    """Where a worker of a pool has died, end the others and what the pool reads, so that it says that it is broken.

    A pool looks after its workers by itself, but for one case (Python 3.11 to 3.13): a worker that is killed in the
    middle of giving back a result leaves half of it in the pipe, and keeps the lock by which the others write to it.
    The pool waits for the other half, the workers for the lock, for ever. To be called when no result has come for a
    while.
    """
    results: Any = getattr(pool, "_result_queue", None)  # a private name; None, where the pool has ended by itself
    if results is None or all(worker.is_alive() for worker in workers_of(pool)):
        return
    kill_workers(pool)
    # The pool's own end: what reads from the other one finds that there is no more.
    results._writer.close()


def kill_workers(pool: ProcessPoolExecutor) -> None:
    """End the workers of a broken pool, so that it can end.

    The pool itself sends them SIGTERM and waits. Where that is ignored, which a process inherits from whoever started
    it (a job script's ``trap '' TERM``), one that gives back a result which nobody reads any more would wait for ever.
    """
    for worker in workers_of(pool):
        worker.kill()
        worker.join()


def workers_of(pool: ProcessPoolExecutor) -> list[BaseProcess]:
    """Its processes, by a private name: they cannot be had otherwise; none where it has been shut down."""
    return list((getattr(pool, "_processes", None) or {}).values())


def kernel_facts(pid: int) -> list[str]:
    """What the kernel says of a process, from its state on (a letter, then the parent's number, ...); empty if it is
    gone, or this is not Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
