"""What each loader worker is at, for the rank that waits for its batch."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawArray

from theworld.processes import kernel_facts

STATES = {"T": "stopped", "t": "stopped by a debugger", "D": "waiting for a disk or network", "Z": "dead"}
"""Of the kernel's states of a process those that tell why it does not work."""
STANDS_STILL = "TtZ"


class WorkerNotes:
    """In memory that a rank shares with its workers: each worker's process, shard, and until when a wait is planned.

    Args:
        workers: of the loader; without any the rank itself is worker 0.
        shard_name: of a shard's number.
    """

    def __init__(self, workers: int, shard_name: Callable[[int], str]) -> None:
        self.workers = max(workers, 1)
        self.shard_name = shard_name
        self.processes = RawArray("q", self.workers)
        self.shards = RawArray("q", [-1] * self.workers)
        self.until = RawArray("d", self.workers)
        self.samples = RawArray("q", self.workers)
        """That each has made in the passes so far."""

    # ---- by the worker

    def begin(self, worker: int) -> None:
        """The worker is a process of its own: this one."""
        self.processes[worker] = os.getpid()

    @contextmanager
    def waiting(self, worker: int, shard: int, longest: float) -> Iterator[None]:
        """The worker waits for a shard while this is open, and goes on reading from it.

        Args:
            worker: its number.
            shard: the shard's number.
            longest: seconds that it may wait.
        """
        self.shards[worker] = shard
        self.until[worker] = time.monotonic() + longest
        try:
            yield
        finally:
            self.until[worker] = 0.0

    def made(self, worker: int) -> None:
        """The worker has a sample of its batch."""
        self.samples[worker] += 1

    # ---- by the rank

    def waits_as_planned(self, worker: int) -> bool:
        """Whether the worker waits for a shard, for no longer than it may, and can notice when it is there."""
        return self.until[worker] > time.monotonic() and self._state(worker) not in STANDS_STILL

    def tell(self, worker: int) -> str:
        """The worker as the log names it: number, process, what is the matter with it, shard."""
        state = STATES.get(self._state(worker))
        parts = [f"worker {worker}"]
        if self.processes[worker]:
            parts.append(f"process {self.processes[worker]}{f' ({state})' if state else ''}")
        if self.shards[worker] >= 0:
            parts.append(f"shard {self.shard_name(self.shards[worker])}")
        return ", ".join(parts)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all workers that are processes of their own."""
        for pid in self.processes:
            if pid and kernel_facts(pid)[1:2] == [str(os.getpid())]:
                os.kill(pid, number)

    def _state(self, worker: int) -> str:
        """The kernel's letter, of Linux; S, for a process that waits for something, where there is none."""
        facts = kernel_facts(self.processes[worker])
        return facts[0] if facts else "S"
