"""A worker that is killed in the middle of giving back a result, with the lock that the others wait for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from theworld.processes import end_broken, kill_workers

ROOT = Path(__file__).parents[2]


def die_with_half_a_result() -> bytes:
    """In a worker: what it gives back breaks off, as that of a process that the kernel kills."""

    def send(connection: Connection, content: bytes) -> None:
        os.write(connection.fileno(), bytes(content)[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    Connection._send = send  # pyright: ignore[reportAttributeAccessIssue] - of this process, which ends with it
    return bytes(1000)


def broken_pool(watched: bool) -> None:
    """The program of the test: ends with a line where the pool says that it is broken."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        future = pool.submit(die_with_half_a_result)
        for _ in range(600 if watched else 5):
            if wait([future], timeout=1.0).done:
                break
            if watched:
                end_broken(pool)
        else:
            print("waits for ever", flush=True)
            os.killpg(0, signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            future.result()
    print("broken", flush=True)


def meet(own: Path, other: Path) -> None:
    """In a worker: wait until another works too. A pool starts the second one when it is needed, and may not see one
    end that it has started after it began to wait."""
    own.touch()
    while not other.exists():
        time.sleep(0.1)


def give_back_too_late(begun: Path) -> bytes:
    """In a worker that SIGTERM does not end: a result, as soon as the pool has sent one and reads no more."""
    sent: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: sent.append(number))
    begun.touch()
    while not sent:
        time.sleep(0.1)
    return bytes(10 << 20)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def pool_that_cannot_end(begun: Path) -> None:
    """The program of the test: ends where a pool's workers are ended once it has said that it is broken."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        first, second = begun.with_name("first"), begun.with_name("second")
        for met in (pool.submit(meet, first, second), pool.submit(meet, second, first)):
            met.result(timeout=240)
        late = pool.submit(give_back_too_late, begun)
        while not begun.exists():
            time.sleep(0.1)
        dead = pool.submit(die)
        with pytest.raises(BrokenProcessPool):
            dead.result(timeout=240)
        with pytest.raises(BrokenProcessPool):
            late.result(timeout=240)
        kill_workers(pool)
    print("ended", flush=True)


def test_a_broken_pool_whose_worker_does_not_heed_sigterm_ends(tmp_path: Path) -> None:
    """Found in a run of all tests, whose processes had been started with SIGTERM ignored."""
    code = (
        "import pathlib, sys\nfrom tests.convert.test_pool_watch import pool_that_cannot_end\n"
        "if __name__ == '__main__':\n    pool_that_cannot_end(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "begun")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=300,
    )
    assert (done.stdout, done.returncode) == ("ended\n", 0), done.stderr


@pytest.mark.parametrize(("watched", "printed"), [(True, "broken\n"), (False, "waits for ever\n")])
def test_the_pool_says_so_where_it_is_watched(watched: bool, printed: str) -> None:
    """And would not by itself, or the watch is needed no more."""
    code = (
        f"from tests.convert.test_pool_watch import broken_pool\nif __name__ == '__main__':\n    broken_pool({watched})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, start_new_session=True, timeout=300
    )
    assert done.stdout == printed, done.stderr
    assert (done.returncode == 0) is watched
