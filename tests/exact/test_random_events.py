"""One pass through at least 20 random events, then counted from the ledger files alone.

The counting below is written from the ledger's format and shares no code with the trainer, the ledger or the audit.
"""

from __future__ import annotations

import json
import math
import random
import signal
from collections import Counter
from pathlib import Path

import pytest
from launching import Run, stop

from tests.helpers.tensorboard import logged

pytestmark = [pytest.mark.slow, pytest.mark.dist]

EVENTS = 20
BATCH = 4
SAMPLES = 150
PEAK, FLOOR, WARMUP = 3e-3, 0.1, 4


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
            "loggers.tensorboard.flush_interval=1",
        ],
    )
    events: list[str] = []
    images, ranks, workers, microbatch = 40, 1, 1, 2
    run.arrive(images)
    while len(events) < EVENTS:
        if images < SAMPLES and chance.random() < 0.6:
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
        trainer = run.start(ranks, f"train_loader.num_workers={workers}", f"device_train_microbatch_size={microbatch}")
        goes_on = run.wait_for_batches(trainer, chance.randint(1, 6))
        assert goes_on, f"the pass ended early after {events}: {run.output}"
        if images < SAMPLES and chance.random() < 0.3:
            images = grow(run, images, chance, events, "while training: ")
        number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        code = stop(trainer, number)
        events.append(number.name)
        assert number == signal.SIGKILL or code != 0, run.output
    run.arrive(SAMPLES)
    assert run.train(2) == 0, run.output
    print(f"seed {seed}: {len(events)} events: {', '.join(events)}")

    names = [entry["filename"] for entry in json.loads((many_samples / "openspatial.json").read_text())]
    seen = count_survivors(run.save_folder / "ledger")
    assert {name: count for name, count in seen.items() if count != 1} == {}, "repeated"
    assert set(seen) == set(names)
    assert len(run.logs) == max(line["launch"] for line in run.lines())
    check_learning_rates(logged(run.save_folder, "lr-DecoupledAdamW/group0"))


def grow(run: Run, images: int, chance: random.Random, events: list[str], when: str = "") -> int:
    more = min(SAMPLES, images + chance.randint(1, 30))
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
