"""Worker processes with threads that fetch: one Python process alone is busy with some hundred images a second."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from theworld import cli
from theworld.download.fetch import FAILED, STOPPED, Fetcher, FetchSettings, Outcome, Task
from theworld.download.server import Server
from theworld.download.tars import TarEnd, TarTask, stream_tar
from theworld.errors import UserError, describe
from theworld.processes import end_with_parent, leave_interrupts_to_parent

CONNECTIONS_PER_PROCESS = 8
AHEAD = 4
"""Tasks given to a process for each of its connections."""
FLUSH = 0.05
TICK = 0.5
GRACE = 20.0
"""Seconds that files in flight have once the download is being stopped."""
STOP, END = "stop", "end"

Message = list[Outcome | TarEnd]

log = logging.getLogger(__name__)


def work(connection: Connection, settings: FetchSettings, threads: int) -> None:
    """A worker process: takes tasks from the connection, sends back outcomes."""
    leave_interrupts_to_parent()
    end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cli.setup_logging()
    server = Server(settings.base, threads + 1, settings.timeout)
    fetcher = Fetcher(settings, server)
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    done: queue.SimpleQueue[Outcome | TarEnd] = queue.SimpleQueue()

    def fetch_tasks() -> None:
        while True:
            task = tasks.get()
            done.put(Outcome(task.number, STOPPED) if server.stopping.is_set() else fetch_whatever(fetcher, task))

    def read_tar(task: TarTask) -> None:
        try:
            done.put(stream_tar(task, fetcher, done.put))
        except Exception as error:
            log.debug("%s", task.key, exc_info=error)
            done.put(TarEnd(task.key, 0, describe(error)))

    for _ in range(threads):
        threading.Thread(target=fetch_tasks, daemon=True).start()
    while True:
        if connection.poll(FLUSH):
            message = connection.recv()
            if message == END:
                return
            if message == STOP:
                server.stopping.set()
            elif isinstance(message, TarTask):
                threading.Thread(target=read_tar, args=(message,), daemon=True).start()
            else:
                for task in message:
                    tasks.put(task)
        outcomes = list(drain(done))
        if outcomes:
            connection.send(outcomes)


def fetch_whatever(fetcher: Fetcher, task: Task) -> Outcome:
    """What became of a task, whatever a server's answer has run into: the download waits for an outcome of each."""
    try:
        return fetcher.fetch(task)
    except Exception as error:
        log.debug("%s", task.name, exc_info=error)
        return Outcome(task.number, FAILED, reason=describe(error))


def drain(source: queue.SimpleQueue) -> Iterator[Any]:
    while True:
        try:
            yield source.get_nowait()
        except queue.Empty:
            return


class Workers:
    """The worker processes, from the parent's side.

    Args:
        settings: for each of them.
        connections: over all of them.

    Attributes:
        waiting: tasks that were given out and have no outcome yet.
    """

    def __init__(self, settings: FetchSettings, connections: int) -> None:
        cores = len(os.sched_getaffinity(0))
        count = max(1, min(cores, connections // CONNECTIONS_PER_PROCESS))
        self.threads = [connections // count + (number < connections % count) for number in range(count)]
        context = multiprocessing.get_context("spawn")
        self.processes = []
        self.connections: list[Connection] = []
        self.load = [0] * count
        self.stop_at: float | None = None
        for threads in self.threads:
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, settings, threads), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.connections.append(ours)

    @property
    def waiting(self) -> int:
        return sum(self.load)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for connection, process in zip(self.connections, self.processes, strict=True):
            try:
                connection.send(END)
            except OSError:
                process.kill()  # it has ended already
        for process in self.processes:
            process.join(2.0)
            if process.is_alive():
                process.kill()
                process.join()

    def stop(self) -> None:
        """Finish files in flight and drop the rest; their outcomes are STOPPED."""
        if self.stop_at is None:
            self.stop_at = time.monotonic()
            for number in range(len(self.connections)):
                self._send(number, STOP)

    def fetch(self, tasks: Iterator[Task]) -> Iterator[list[Outcome]]:
        """Outcomes as they come, now and then an empty list; ends when all tasks have theirs.

        Args:
            tasks: taken a little ahead; when it has no more for now, only what was given out is waited for.

        Raises:
            UserError: a worker was killed.
        """
        more = True
        while True:
            if more and self.stop_at is None:
                more = self._feed(tasks)
            if not self.waiting or self._out_of_grace():
                return
            yield [outcome for outcome in self._receive(Outcome) if isinstance(outcome, Outcome)]

    def stream(self, tars: list[TarTask]) -> Iterator[Message]:
        """Outcomes and ends of tars, one tar in each process at a time; now and then an empty list."""
        left = list(tars)
        while True:
            for number, load in enumerate(self.load):
                if left and not load and self.stop_at is None:
                    self._send(number, left.pop(0))
                    self.load[number] = 1
            if not self.waiting or self._out_of_grace():
                return
            yield self._receive(TarEnd)

    def _out_of_grace(self) -> bool:
        return self.stop_at is not None and time.monotonic() - self.stop_at > GRACE

    def _feed(self, tasks: Iterator[Task]) -> bool:
        """Fill up what each process has to do; False if there are no more tasks."""
        for number, threads in enumerate(self.threads):
            room = threads * AHEAD - self.load[number]
            if room < threads * AHEAD // 4:
                continue
            batch = []
            for task in tasks:
                batch.append(task)
                self.load[number] += 1
                if len(batch) == room:
                    break
            if batch:
                self._send(number, batch)
            if len(batch) < room:
                return False
        return True

    def _send(self, number: int, message: Any) -> None:
        try:
            self.connections[number].send(message)
        except OSError as error:
            raise self._killed() from error

    def _receive(self, ends_a_task: type) -> Message:
        message: Message = []
        for connection in wait(self.connections, TICK):
            assert isinstance(connection, Connection)
            number = self.connections.index(connection)
            try:
                got: Message = connection.recv()
            except (EOFError, OSError) as error:
                raise self._killed() from error
            self.load[number] -= sum(isinstance(outcome, ends_a_task) for outcome in got)
            message += got
        return message

    def _killed(self) -> UserError:
        return UserError("a worker process was killed (out of memory?); run the same command again, it goes on")
