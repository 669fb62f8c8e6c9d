"""The learning rate follows the samples, whatever the batches' size and however the pass grows."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from composer.core import State, Timestamp
from composer.devices import DeviceCPU
from composer.optim import CosineAnnealingWithWarmupScheduler

from tests.helpers.loader import open_data, smoke_on
from theworld.data.batches.expectation import Expectation
from theworld.data.batches.order import Stage
from theworld.data.batches.passes import PassDataset
from theworld.train.sample_schedule import SampleSchedule

SAMPLES = 26


@pytest.fixture
def dataset(mds_sample: Path, tmp_path: Path) -> Iterator[PassDataset]:
    """Of 26 samples, in batches of 4."""
    data = open_data(smoke_on(mds_sample, tmp_path / "cache", "train_loader.num_workers=0"))
    assert data.dataset.snapshot.samples == SAMPLES
    yield data.dataset
    data.close()


def at(samples: int, batches: int, passes: int = 0, max_duration: str = "1ep", in_pass: int | None = None) -> State:
    state = State(
        model=torch.nn.Linear(1, 1),
        rank_zero_seed=0,
        run_name="test",
        device=DeviceCPU(),
        max_duration=max_duration,
        dataloader=[None] * 7,
        dataloader_label="train",
    )
    in_pass = batches if in_pass is None else in_pass
    state.timestamp = Timestamp(epoch=passes, batch=batches, batch_in_epoch=in_pass, sample_in_epoch=samples)
    return state


def cosine(share: float) -> float:
    return 0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2


def schedule(dataset: PassDataset, warmup: str = "0ba", expected: int | None = None) -> SampleSchedule:
    return SampleSchedule(CosineAnnealingWithWarmupScheduler(warmup, alpha_f=0.1), dataset, Expectation(expected))


def test_without_a_change_it_is_composers_own(dataset: PassDataset) -> None:
    own = CosineAnnealingWithWarmupScheduler("2ba", alpha_f=0.1)
    for passes, duration in ((0, "1ep"), (1, "2ep")):
        for batches in range(8):
            state = at(min(4 * batches, SAMPLES), 7 * passes + batches, passes, duration, batches)
            assert schedule(dataset, "2ba")(state) == own(state)


def test_another_batch_size_half_way_keeps_the_curve(dataset: PassDataset) -> None:
    """24 samples in batches of 4, then from 12 on of 8: the share of samples counts, and the warmup stays done."""
    dataset.stages = [Stage(0, SAMPLES, 4), Stage(12, SAMPLES, 8)]
    dataset.global_batch_size = 8
    for samples, batches in ((12, 3), (20, 4), (26, 5)):
        share = (math.ceil(samples / 4) - 2) / 5
        assert schedule(dataset, "2ba")(at(samples, batches)) == pytest.approx(cosine(share))


def test_growth_stretches_the_curve_and_is_said_once(dataset: PassDataset, caplog: pytest.LogCaptureFixture) -> None:
    dataset.stages = [Stage(0, 12, 4), Stage(12, SAMPLES, 4)]
    with caplog.at_level(logging.INFO):
        grown = schedule(dataset)
        assert grown(at(16, 4)) == pytest.approx(cosine(4 / 7))
        grown(at(20, 5))
    assert (
        caplog.text.count("runs over 26 samples of the pass, before over 12; 16 are done: the rate may rise again") == 1
    )
    caplog.clear()
    with caplog.at_level(logging.INFO):
        schedule(dataset)(at(24, 6))
    assert "before over" not in caplog.text, "a later resume has nothing new to say"


def test_what_is_expected_is_reckoned_with(dataset: PassDataset) -> None:
    assert schedule(dataset, expected=52)(at(26, 7)) == pytest.approx(cosine(7 / 13))
    assert schedule(dataset, expected=10)(at(12, 3)) == pytest.approx(cosine(3 / 7)), "more is there than was expected"


def test_a_run_over_batches_counts_batches(dataset: PassDataset) -> None:
    dataset.stages = [Stage(0, SAMPLES, 8)]
    assert schedule(dataset)(at(20, 5, max_duration="10ba")) == pytest.approx(cosine(0.5))
