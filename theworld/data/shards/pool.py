"""Worker processes that write shards."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from theworld.data.shards.shard_plan import ShardJob
from theworld.data.shards.write_shard import ShardWriter, Written
from theworld.errors import UserError
from theworld.interrupts import held_back
from theworld.processes import end_broken, end_with_parent, kill_workers, leave_interrupts_to_parent

JOBS_PER_WORKER = 3
_writer: ShardWriter | None = None


def start_worker(writer: ShardWriter) -> None:
    """Prepare a worker process: leave Ctrl-C to the parent, and end when the parent ends."""
    global _writer
    _writer = writer
    leave_interrupts_to_parent()
    end_with_parent()


def write_job(job: ShardJob) -> Written:
    assert _writer is not None
    return _writer.write(job)


class ShardPool:
    """Worker processes that write shards, and threads that bring them to the disk.

    Args:
        writer: what to write with; goes to each worker once.
        workers: processes, started when the first shard has to be written.
        tick: called about every second while waiting.
    """

    def __init__(self, writer: ShardWriter, workers: int, tick: Callable[[], None]) -> None:
        self.writer, self.workers, self.tick = writer, workers, tick
        self._processes: ProcessPoolExecutor | None = None
        self._threads = ThreadPoolExecutor(workers, "finish-shard")
        self._writing: dict[Future[Any], ShardJob] = {}
        self._finishing: dict[Future[Any], ShardJob] = {}

    def run(self, jobs: Iterator[ShardJob]) -> Generator[tuple[ShardJob, dict[str, Any]], None, None]:
        """Write jobs, taking few of them ahead; gives each with its fragment as it is finished.

        Jobs that an earlier, killed run finished are given at once and not written again.

        Args:
            jobs: lazily planned; the next one is asked for when a worker is free.

        Raises:
            UserError: a worker was killed.
            OSError: of a worker, such as a full disk.
        """
        unfinished: ShardJob | None = None
        try:
            for job in jobs:
                fragment = self.writer.finished(job)
                if fragment is not None:
                    yield job, fragment
                    continue
                if unfinished is not None:
                    self._submit(unfinished)
                unfinished = job
                while len(self._writing) + len(self._finishing) >= self.workers * JOBS_PER_WORKER:
                    yield from self._collect()
            if unfinished is not None and self._processes is None:
                # One shard, as after a small growth: written before a worker could have started.
                yield unfinished, self.writer.finish(unfinished, self.writer.write(unfinished))
            elif unfinished is not None:
                self._submit(unfinished)
            while self._writing or self._finishing:
                yield from self._collect()
        except BrokenProcessPool as error:
            if self._processes is not None:
                kill_workers(self._processes)
            raise UserError(
                "a worker process was killed (out of memory?); finished shards are kept, run the same command again"
            ) from error
        finally:
            with held_back():
                if self._processes is not None:
                    self._processes.shutdown(wait=True, cancel_futures=True)
                self._threads.shutdown(wait=True)

    def _submit(self, job: ShardJob) -> None:
        with held_back():
            if self._processes is None:
                # Not fork: the parent has threads. Workers import this module, without torch.
                context = multiprocessing.get_context("spawn")
                self._processes = ProcessPoolExecutor(self.workers, context, start_worker, (self.writer,))
            self._writing[self._processes.submit(write_job, job)] = job

    def _collect(self) -> Iterator[tuple[ShardJob, dict[str, Any]]]:
        """Wait up to a second for some job to come a step further."""
        with held_back():
            done, _ = wait([*self._writing, *self._finishing], timeout=1.0, return_when=FIRST_COMPLETED)
            if not done and self._processes is not None:
                end_broken(self._processes)
            written = [future for future in done if future in self._writing]
            for future in written:
                job = self._writing.pop(future)
                self._finishing[self._threads.submit(self.writer.finish, job, future.result())] = job
        for future in done.difference(written):
            yield self._finishing.pop(future), future.result()
        self.tick()
