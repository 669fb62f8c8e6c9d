"""Worker processes that write shards."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_handles
from typing import Any

from theworld.data.shards.plan import ShardJob
from theworld.data.shards.write import ShardWriter
from theworld.errors import UserError

JOBS_PER_WORKER = 2
_writer: ShardWriter | None = None


def start_worker(writer: ShardWriter) -> None:
    """Prepare a worker process: leave Ctrl-C to the parent, and end when the parent ends."""
    global _writer
    _writer = writer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait_for_handles([parent.sentinel])  # a killed parent cannot tell its workers to stop
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def write_job(job: ShardJob) -> dict[str, Any]:
    assert _writer is not None
    return _writer.write(job)


def write_shards(
    writer: ShardWriter, jobs: Iterator[ShardJob], workers: int, tick: Callable[[], None]
) -> Iterator[tuple[ShardJob, dict[str, Any]]]:
    """Write jobs in worker processes, taking few of them ahead; gives each with its fragment as it finishes.

    Jobs that an earlier, killed run finished are given at once and not written again.

    Args:
        writer: what to write with; goes to each worker once.
        jobs: lazily planned; the next one is asked for when a worker is free.
        workers: processes, started when the first shard has to be written.
        tick: called about every second while waiting.

    Raises:
        UserError: a worker was killed.
        OSError: of a worker, such as a full disk.
    """
    pool = None
    running: dict[Future, ShardJob] = {}
    try:
        for job in jobs:
            fragment = writer.finished(job)
            if fragment is not None:
                yield job, fragment
                continue
            if pool is None:
                # Not fork: the parent has threads. Workers import this module, without torch.
                context = multiprocessing.get_context("spawn")
                pool = ProcessPoolExecutor(workers, context, start_worker, (writer,))
            running[pool.submit(write_job, job)] = job
            while len(running) >= workers * JOBS_PER_WORKER:
                yield from finished_jobs(running, tick)
        while running:
            yield from finished_jobs(running, tick)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed (out of memory?); finished shards are kept, run the same command again"
        ) from error
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)


def finished_jobs(
    running: dict[Future, ShardJob], tick: Callable[[], None]
) -> Iterator[tuple[ShardJob, dict[str, Any]]]:
    """Wait up to a second for some job to end."""
    done, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
    for future in done:
        fragment = future.result()
        yield running.pop(future), fragment
    tick()
