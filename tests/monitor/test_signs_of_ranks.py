"""Who stands still: notes of loader workers, signs of ranks, and the main thread that is woken."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.slurm.cluster import wait_until
from theworld.data.batches.worker_notes import WorkerNotes
from theworld.lease import Holder, rank_path, write_holder
from theworld.pulse import LOADER, RANKS, WAKE, Interrupted, Pulse, always
from theworld.train.signs_of_ranks import Signs

PAUSE = 0.05


@pytest.fixture
def handler_of_wake() -> Iterator[None]:
    before = signal.getsignal(WAKE)
    yield
    signal.signal(WAKE, before)


def test_a_stopped_worker_is_told_with_its_shard_and_is_in_no_planned_wait() -> None:
    notes = WorkerNotes(2, "shard-{}".format)
    assert notes.tell(1) == "worker 1"

    def work() -> None:
        notes.begin(1)
        with notes.waiting(1, 5, longest=100.0):
            time.sleep(100)

    worker = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    worker.start()
    try:
        wait_until(lambda: notes.waits_as_planned(1), "the worker waits for its shard")
        assert notes.tell(1) == f"worker 1, process {worker.pid}, shard shard-5"
        assert worker.pid is not None
        process = psutil.Process(worker.pid)
        notes.send(signal.SIGSTOP)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "it is stopped")
        assert not notes.waits_as_planned(1)
        assert notes.tell(1) == f"worker 1, process {worker.pid} (stopped), shard shard-5"
        assert not notes.waits_as_planned(0)
    finally:
        worker.kill()
        worker.join()


def test_the_main_thread_is_woken_where_it_waits_for_the_loader_only(handler_of_wake: None) -> None:
    pulse = Pulse()
    signal.signal(WAKE, pulse.interrupt)
    main = threading.main_thread().ident
    assert main is not None
    reading, writing = os.pipe()

    def wake() -> None:
        wait_until(lambda: pulse.interruptible, "the main thread waits")
        signal.pthread_kill(main, WAKE)

    with pulse.at(RANKS):
        signal.pthread_kill(main, WAKE)  # nothing happens
    thread = threading.Thread(target=wake)
    thread.start()
    with pytest.raises(Interrupted), pulse.at(LOADER, interruptible=True):
        os.read(reading, 1)
    thread.join()
    assert not pulse.interruptible
    os.close(reading)
    os.close(writing)


def test_planned_waits_do_not_count_and_other_threads_change_nothing() -> None:
    pulse = Pulse()
    pulse.batch_done(1)
    moved = pulse.moved_at
    with pulse.at(LOADER):
        assert pulse.doing.what == LOADER
        with pulse.at("patience", planned=always):
            assert pulse.doing.planned()
        assert pulse.moved_at > moved
        moved = pulse.moved_at
        thread = threading.Thread(target=pulse.at("save", planned=always).__enter__)
        thread.start()
        thread.join()
        assert pulse.doing.what == LOADER
    assert (pulse.moved_at, pulse.doing.planned()) == (moved, False)


class Ranks:
    """Three ranks' signs in one folder, each with a pulse of its own, read and written when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pulses = [Pulse() for _ in range(3)]
        self.signs = [Signs(folder, lambda: 4, rank, 3, pulse, 6 * PAUSE) for rank, pulse in enumerate(self.pulses)]
        self.beats = 0
        for pulse in self.pulses:
            pulse.batch_done(8)

    def exchange(self, *living: int) -> None:
        for rank in living:
            self.signs[rank]._exchange()
        if 0 in living:
            self.beats += 1
            found = self.signs[0].found
            told = {"silent": found.silent, "planned": found.planned, "waits": found.waits}
            write_holder(rank_path(self.folder, 4, 0), Holder(4, None, self.beats, False, {"found": told}))


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ranks:
    monkeypatch.setattr("theworld.train.signs_of_ranks.BEAT", PAUSE)
    return Ranks(tmp_path)


def test_ranks_that_get_on_write_nothing(ranks: Ranks) -> None:
    ranks.exchange(1, 2)
    assert not list(ranks.folder.iterdir())
    both = lambda: (ranks.exchange(1, 2), len(list(ranks.folder.iterdir())) == 2)[1]  # noqa: E731
    wait_until(both, "both say what they do", 10)
    for pulse in ranks.pulses:
        pulse.batch_done(9)
    ranks.exchange(1, 2)
    assert not list(ranks.folder.iterdir())


def test_the_rank_whose_loader_stands_still_is_named_to_all(ranks: Ranks) -> None:
    with ranks.pulses[2].at(LOADER, detail=lambda: "worker 1, process 77 (stopped)"):
        wait_until(lambda: (ranks.exchange(2, 1, 0, 1), ranks.signs[1].found.waits)[1] != "", "it is known", 10)
    assert ranks.signs[0].found.waits == "the loader (rank 2, worker 1, process 77 (stopped))"
    assert ranks.signs[1].found.waits == ranks.signs[0].found.waits
    assert not ranks.signs[1].planned_elsewhere()


def test_a_planned_wait_of_one_rank_is_known_to_all(ranks: Ranks) -> None:
    with ranks.pulses[2].at(LOADER, planned=always):
        wait_until(lambda: (ranks.exchange(2, 1, 0, 1), ranks.signs[1].planned_elsewhere())[1], "it is known", 10)
    assert ranks.signs[0].planned_elsewhere()


@pytest.mark.parametrize("dead", [0, 1])
def test_a_rank_without_a_sign_is_named(ranks: Ranks, dead: int) -> None:
    ranks.exchange(0, 1, 2)
    living = [rank for rank in (1, 2, 0) if rank != dead]
    wait_until(lambda: (ranks.exchange(*living), dead in ranks.signs[2].found.silent)[1], "it is known", 10)
    assert list(ranks.signs[2].found.silent) == [dead]
    assert ranks.signs[2].found.waits.startswith(f"rank {dead}, which gives no sign of life for ")
