"""The wait for the first batch of a start can be seen: a bar on a terminal, lines in a log."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.loader import open_data, read_pass, smoke_on
from tests.helpers.terminal import seen
from theworld.data.batches import loader
from theworld.data.batches.passes import PassDataset


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bar_on_a_terminal_for_the_first_batch_only(mds_sample: Path, tmp_path: Path, workers: int) -> None:
    shown: list[str] = []
    data = open_data(smoke_on(mds_sample, tmp_path / "cache", f"train_loader.num_workers={workers}"))
    with seen(shown):
        assert len(read_pass(data)) == 26
        assert len(read_pass(data)) == 26
        data.close()
    assert re.search(r"first batch: 100%.* 4/4 .* samples/s", shown[0])
    assert shown[0].count("0/4") == 1


def test_none_for_an_evaluation(mds_sample: Path, tmp_path: Path) -> None:
    shown: list[str] = []
    data = open_data(smoke_on(mds_sample, tmp_path / "cache"), growing=False)
    with seen(shown):
        next(iter(data.spec.dataloader))
        data.close()
    assert shown == [""]


def test_lines_in_a_log_tell_samples_rate_time_left_and_shard(
    mds_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each sample waits until the progress of the one before was looked at."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(loader.FirstBatch.__init__, "__defaults__", (0.0,))
    data = open_data(smoke_on(mds_sample, tmp_path / "cache", "train_loader.num_workers=0"))
    read = PassDataset.sample

    def slow(dataset: PassDataset, index: int) -> dict[str, Any]:
        made = dataset.notes.samples[0]
        end = time.monotonic() + 300
        while made and f"first batch: {made} of 4 samples" not in caplog.text:
            assert time.monotonic() < end, caplog.text
        return read(dataset, index)

    monkeypatch.setattr(PassDataset, "sample", slow)
    next(iter(data.spec.dataloader))
    data.close()
    lines = [line for line in caplog.messages if line.startswith("first batch: 2 of 4 samples, ")]
    assert re.search(r" samples/s, \d+ min left, worker 0, shard gen-00000/shard\.\d+\.mds", lines[0])
