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
from pathlib import Path
from typing import TypeVar

import pytest
from launching import Run, stop

from tests.helpers.launcher import Process, ended
from tests.helpers.tensorboard import logged
from tests.slurm.cluster import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.dist]

EVENTS = 20
BATCH = 4
SAMPLES = 150
AT_LAST = 20
"""Images that come when all events are over, so that the pass cannot end among them, however fast it is."""
PEAK, FLOOR, WARMUP = 3e-3, 0.1, 4

Card = TypeVar("Card")


def test_every_sample_once_through_random_events(many_samples: Path, folder: Path) -> None:
    seed = 17
    chance = random.Random(seed)
    run = Run(
        many_samples,
        folder,
        [
            f"global_train_batch_size={BATCH}",
            "save_interval=2ba",
            f"train_loader.expected_samples={SAMPLES}",
            "train_loader.wait=0",
            "train_loader.dataset.patience=60",
            "loggers.tensorboard.flush_interval=1",
        ],
    )
    events: list[str] = []
    images, ranks, workers, microbatch = 40, 1, 1, 2
    ways_to_stop = cards(chance, [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
    troubles = cards(chance, ["two starts", "outage", "none"])
    asleep: Start | None = None
    refused = sleepers = 0
    run.arrive(images)
    while len(events) < EVENTS or asleep is not None:
        if images < SAMPLES - AT_LAST and chance.random() < 0.6:
            images = grow(run, images, chance, events)
        if chance.random() < 0.6:
            ranks = 3 - ranks
            events.append(f"{ranks} ranks")
        if chance.random() < 0.5:
            workers = chance.choice([count for count in (0, 1, 2) if count != workers])
            events.append(f"{workers} workers")
        if chance.random() < 0.3:
            microbatch = 3 - microbatch
            events.append(f"microbatches of {microbatch}")
        # Whoever sleeps is taken for a lost node, after which SLURM starts the job again elsewhere.
        start = begin(run, ranks, workers, microbatch, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(sleepers)})
        trouble = next(troubles)
        if trouble == "two starts":
            twin = begin(run, ranks, workers, microbatch, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(sleepers)})
            start, one_refused = the_one_that_goes_on(start, twin)
            refused += one_refused
            events.append("two starts at once")
        if not run.wait_for_batches(start.trainer, chance.randint(1, 6)):
            assert start.trainer.wait() == 75, start.output
            events.append("all that was there used up")
            images = grow(run, images, chance, events)
        if asleep is not None:
            wake(asleep, events)
            asleep = None
        if start.trainer.poll() is not None:
            assert start.trainer.returncode == 75, start.output
            continue
        if trouble == "outage":
            take_away(run.mds, chance.randint(1, 5), events)
        if images < SAMPLES - AT_LAST and chance.random() < 0.3:
            images = grow(run, images, chance, events, "while training: ")
        if start.trainer.poll() is not None:
            assert start.trainer.returncode == 75, start.output
            events.append("all that was there used up meanwhile")
            continue
        number = next(ways_to_stop)
        events.append(number.name)
        if number == signal.SIGSTOP:
            os.killpg(start.trainer.pid, number)
            asleep = start
            sleepers += 1
        else:
            code = stop(start.trainer, number)
            assert number == signal.SIGKILL or code != 0, start.output
    run.arrive(SAMPLES)
    assert run.train(2) == 0, run.output
    print(f"seed {seed}: {len(events)} events: {', '.join(events)}")
    check_the_pass(run, many_samples, refused)


def check_the_pass(run: Run, many_samples: Path, refused: int) -> None:
    """Every sample once, no start uncounted but the refused ones, and the learning rates of an unbroken run."""
    names = [entry["filename"] for entry in json.loads((many_samples / "openspatial.json").read_text())]
    seen = count_survivors(run.save_folder / "ledger")
    assert {name: count for name, count in seen.items() if count != 1} == {}, "repeated"
    assert set(seen) == set(names)
    assert len(run.logs) - refused == max(line["launch"] for line in run.lines())
    check_learning_rates(logged(run.save_folder, "lr-DecoupledAdamW/group0"))


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


def begin(run: Run, ranks: int, workers: int, microbatch: int, environment: dict[str, str]) -> Start:
    settings = (f"train_loader.num_workers={workers}", f"device_train_microbatch_size={microbatch}")
    trainer = run.start(ranks, *settings, environment=environment)
    return Start(trainer, run.logs[-1])


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


def grow(run: Run, images: int, chance: random.Random, events: list[str], when: str = "") -> int:
    more = min(SAMPLES - AT_LAST, images + chance.randint(1, 30))
    run.arrive(more)
    events.append(f"{when}{more} images")
    return more


def count_survivors(ledger: Path) -> Counter[str]:
    """How often each id was trained on, in the batches that no later launch did again."""
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
    return Counter(name for _, ids in newest.values() for name in ids)


def check_learning_rates(rates: dict[int, float]) -> None:
    """The schedule ran over the expected samples, whatever was known at a time: warm-up, then a cosine to the floor."""
    expected = math.ceil(SAMPLES / BATCH)
    assert len(rates) >= expected - 1
    for step, rate in rates.items():
        batch = step - 1  # steps are counted from 1
        if batch <= WARMUP:
            factor = batch / WARMUP
        else:
            done = min((batch - WARMUP) / (expected - WARMUP), 1.0)
            factor = FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2
        assert rate == pytest.approx(PEAK * factor, rel=1e-4), f"batch {batch}"
