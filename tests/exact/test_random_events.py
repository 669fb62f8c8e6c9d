"""One pass through at least 20 random events, then counted from the ledger files alone.

The counting below is written from the ledger's format and shares no code with the trainer, the ledger or the audit.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TypeVar

import pytest
from launching import Run, stop

from tests.helpers.launcher import Process, ended
from tests.helpers.tensorboard import logged
from tests.slurm.cluster import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.dist]

EVENTS = 20
SAMPLES = 150
AT_LAST = 20
"""Images that come when all events are over, so that the pass cannot end among them, however fast it is."""
OUTAGES = 60, 2, 20, 5
"""Seconds that the remote is away, one outage after the other; the longest comes for certain."""
PEAK, FLOOR, WARMUP = 3e-3, 0.1, 4

Card = TypeVar("Card")


def test_every_sample_once_through_random_events(many_samples: Path, folder: Path) -> None:
    seed = 17
    run = Run(
        many_samples,
        folder,
        [
            "save_interval=2ba",
            f"train_loader.expected_samples={SAMPLES}",
            "train_loader.wait=0",
            "train_loader.dataset.patience=180",
            "loggers.tensorboard.flush_interval=1",
        ],
    )
    ordeal = Ordeal(run, random.Random(seed))
    ordeal.go_through(EVENTS)
    run.arrive(SAMPLES)
    assert run.train(2, "global_train_batch_size=4", "device_train_microbatch_size=2") == 0, run.output
    print(f"seed {seed}: {len(ordeal.events)} events: {', '.join(ordeal.events)}")
    check_the_pass(run, many_samples, ordeal.refused)


@dataclass
class Size:
    """What a start is begun with."""

    ranks: int = 1
    workers: int = 1
    microbatch: int = 2
    batch: int = 4

    def change(self, chance: random.Random) -> Iterator[str]:
        """Change some of it, and say what."""
        if chance.random() < 0.6:
            self.ranks = 3 - self.ranks
            yield f"{self.ranks} ranks"
        if chance.random() < 0.5:
            self.workers = chance.choice([count for count in (0, 1, 2) if count != self.workers])
            yield f"{self.workers} workers"
        if chance.random() < 0.3:
            self.microbatch = 3 - self.microbatch
            yield f"microbatches of {self.microbatch}"
        if chance.random() < 0.4:
            self.batch = 12 - self.batch
            yield f"batches of {self.batch}"


class Ordeal:
    """The events of a run, one start after the other."""

    def __init__(self, run: Run, chance: random.Random) -> None:
        self.run, self.chance = run, chance
        self.events: list[str] = []
        self.size = Size()
        self.images = 40
        self.ways_to_stop = cards(chance, [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
        self.troubles = cards(chance, ["two starts", "outage", "none"])
        self.outages = cycle(OUTAGES)
        self.asleep: Start | None = None
        self.refused = self.sleepers = 0
        run.arrive(self.images)

    def go_through(self, events: int) -> None:
        """Start and stop until there were so many."""
        while len(self.events) < events or self.asleep is not None:
            self.perhaps_grow(0.6)
            self.events += self.size.change(self.chance)
            trouble = next(self.troubles)
            start = self.begin(twice=trouble == "two starts")
            if not self.run.wait_for_batches(start.trainer, self.chance.randint(1, 6)):
                assert start.trainer.wait() == 75, start.output
                self.events.append("all that was there used up")
                self.grow()
            if self.asleep is not None:
                wake(self.asleep, self.events)
                self.asleep = None
            if not used_up(start):
                self.disturb(start, trouble)

    def begin(self, twice: bool) -> Start:
        """The start that goes on."""
        start = self.begin_one()
        if twice:
            start, one_refused = the_one_that_goes_on(start, self.begin_one())
            self.refused += one_refused
            self.events.append("two starts at once")
        return start

    def begin_one(self) -> Start:
        size = self.size
        settings = (
            f"train_loader.num_workers={size.workers}",
            f"device_train_microbatch_size={size.microbatch}",
            f"global_train_batch_size={size.batch}",
        )
        # Whoever sleeps is taken for a lost node, after which SLURM starts the job again elsewhere.
        job = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(self.sleepers)}
        trainer = self.run.start(size.ranks, *settings, environment=job)
        return Start(trainer, self.run.logs[-1])

    def disturb(self, start: Start, trouble: str) -> None:
        """What happens to a start that trains, and its end or its sleep."""
        if trouble == "outage":
            take_away(self.run.mds, next(self.outages), self.events)
        self.perhaps_grow(0.3, "while training: ")
        if used_up(start):
            self.events.append("all that was there used up meanwhile")
            return
        number = next(self.ways_to_stop)
        self.events.append(number.name)
        if number == signal.SIGSTOP:
            os.killpg(start.trainer.pid, number)
            self.asleep = start
            self.sleepers += 1
        else:
            code = stop(start.trainer, number)
            assert number == signal.SIGKILL or code != 0, start.output

    def perhaps_grow(self, probability: float, when: str = "") -> None:
        if self.images < SAMPLES - AT_LAST and self.chance.random() < probability:
            self.grow(when)

    def grow(self, when: str = "") -> None:
        self.images = min(SAMPLES - AT_LAST, self.images + self.chance.randint(1, 30))
        self.run.arrive(self.images)
        self.events.append(f"{when}{self.images} images")


def check_the_pass(run: Run, many_samples: Path, refused: int) -> None:
    """Every sample once, no start uncounted but the refused ones, and the learning rates of an unbroken run."""
    names = [entry["filename"] for entry in json.loads((many_samples / "openspatial.json").read_text())]
    batches = survivors(run.save_folder / "ledger")
    seen = Counter(name for ids in batches for name in ids)
    assert {name: count for name, count in seen.items() if count != 1} == {}, "repeated"
    assert set(seen) == set(names)
    assert len(run.logs) - refused == max(line["launch"] for line in run.lines())
    check_learning_rates(logged(run.save_folder, "lr-DecoupledAdamW/group0"), [len(ids) for ids in batches])


def take_away(data_set: Path, seconds: int, events: list[str]) -> None:
    """Let the remote be out of reach for so long."""
    away = data_set.rename(data_set.with_name("away"))
    time.sleep(seconds)
    away.rename(data_set)
    events.append(f"remote away for {seconds} s")


def wake(asleep: Start, events: list[str]) -> None:
    """Let a stopped trainer go on: it finds that a newer one is at work."""
    os.killpg(asleep.trainer.pid, signal.SIGCONT)
    assert ended(asleep.trainer) == 2, asleep.output
    assert "a newer start of the run" in asleep.output
    events.append("the one that was asleep woke up and ended")


@dataclass
class Start:
    """A launch, and where it says what."""

    trainer: Process
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")


def used_up(start: Start) -> bool:
    """Whether it has ended, which it may where nothing is left to train on."""
    if start.trainer.poll() is None:
        return False
    assert start.trainer.returncode == 75, start.output
    return True


def the_one_that_goes_on(first: Start, second: Start) -> tuple[Start, bool]:
    """Of two starts at once one is refused, unless the other has used up all that was there before it was.

    Returns:
        the one that goes on, and whether the other one was refused.
    """
    wait_until(lambda: first.trainer.poll() is not None or second.trainer.poll() is not None, "one has ended")
    ended_first, other = (first, second) if first.trainer.poll() is not None else (second, first)
    if ended_first.trainer.returncode == 75:
        return other, False
    assert ended_first.trainer.returncode == 2, ended_first.output
    assert "is in use by attempt" in ended_first.output
    return other, True


def cards(chance: random.Random, deck: Sequence[Card]) -> Iterator[Card]:
    """Endless, in random order, each of them once before any comes again."""
    while True:
        yield from chance.sample(list(deck), len(deck))


def survivors(ledger: Path) -> list[list[str]]:
    """The ids of each batch, by the newest launch that did it."""
    newest: dict[int, tuple[int, list[str]]] = {}
    for path in ledger.glob("rank*.jsonl"):
        for text in path.read_text().splitlines():
            line = json.loads(text)
            launch, ids = newest.get(line["batch"], (0, []))
            if line["launch"] == launch:
                newest[line["batch"]] = (launch, ids + line["ids"])
            elif line["launch"] > launch:
                newest[line["batch"]] = (line["launch"], list(line["ids"]))
    assert sorted(newest) == list(range(len(newest))), "a batch is missing"
    return [newest[batch][1] for batch in range(len(newest))]


def check_learning_rates(rates: dict[int, float], sizes: list[int]) -> None:
    """The schedule ran over the expected samples, whatever was known at a time and however large the batches were:
    warm-up, then a cosine to the floor, in batches of the size that the pass began with."""
    first = sizes[0]
    expected = math.ceil(SAMPLES / first)
    assert len(rates) >= len(sizes) - 1
    for step, rate in rates.items():
        batch = math.ceil(sum(sizes[: step - 1]) / first)  # steps are counted from 1
        if batch <= WARMUP:
            factor = batch / WARMUP
        else:
            done = min((batch - WARMUP) / (expected - WARMUP), 1.0)
            factor = FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2
        assert rate == pytest.approx(PEAK * factor, rel=1e-4), f"batch {step - 1}"
