"""A pass stays open while data may come: it waits, leaves, goes on, is opened again, and has every sample once."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import smoke_config
from tests.helpers.tensorboard import logged
from tests.slurm.cluster import wait_until
from theworld.commands.audit import main as audit
from theworld.config.schema import Config
from theworld.data.shards.convert import convert
from theworld.errors import EXIT_DONE, EXIT_RUN_AGAIN, NotNow
from theworld.train.callbacks import open_pass
from theworld.train.run import train

SAMPLES = 26
SETTINGS = (
    "global_train_batch_size=4",
    "device_train_microbatch_size=2",
    "save_interval=100ba",
    "model.freeze.language=true",
    "loggers.tensorboard.flush_interval=1",
)

Growing = Callable[..., Config]


@pytest.fixture
def growing(raw_sample: Path, tmp_path: Path) -> Growing:
    """Lets the first so many images be there and be converted; gives the run's configuration."""
    raw = tmp_path / "raw"
    (raw / "images").mkdir(parents=True)
    os.link(raw_sample / "openspatial.json", raw / "openspatial.json")

    def arrive(count: int, *overrides: str) -> Config:
        for image in sorted((raw_sample / "images").iterdir())[:count]:
            if not (raw / "images" / image.name).exists():
                os.link(image, raw / "images" / image.name)
        places = (f"save_folder={tmp_path / 'run'}", f"train_loader.dataset.local={tmp_path / 'cache'}")
        config = smoke_config(raw, tmp_path / "mds", *places, *SETTINGS, "train_loader.num_workers=0", *overrides)
        convert(config.convert)
        return config

    return arrive


def batches(folder: Path) -> list[list[str]]:
    """Ids of each batch, by the ledger of one rank; of each batch the last line counts."""
    found: dict[int, list[str]] = {}
    for text in (folder / "ledger" / "rank0.jsonl").read_text().splitlines():
        line = json.loads(text)
        found[line["batch"]] = line["ids"]
    return [found[number] for number in range(len(found))]


def assert_all_once(config: Config, passes: int = 1) -> None:
    seen = [name for batch in batches(Path(str(config.save_folder))) for name in batch]
    assert len(seen) == SAMPLES * passes
    assert len(set(seen)) == SAMPLES
    assert audit([str(config.save_folder), config.convert.out]) == EXIT_DONE


@pytest.mark.slow
@pytest.mark.parametrize("expected", [str(SAMPLES), "auto"])
def test_what_is_expected_is_waited_for_then_left_for_and_gone_on_with(growing: Growing, expected: str) -> None:
    settings = (f"train_loader.expected_samples={expected}", "train_loader.wait=0")
    config = growing(10, *settings)
    folder = Path(str(config.save_folder))
    with pytest.raises(NotNow, match=r"16 of 26 expected samples are not in .* yet") as left:
        train(config)
    assert left.value.exit_code == EXIT_RUN_AGAIN
    # The two samples that do not fill a batch wait for those that will fill it up.
    assert [len(batch) for batch in batches(folder)] == [4, 4]
    assert (folder / "ep0-ba2-rank0.pt").exists()
    assert audit([str(folder), config.convert.out]) == EXIT_RUN_AGAIN

    with pytest.raises(NotNow, match="9 of 26"):
        train(growing(17, *settings))
    assert [len(batch) for batch in batches(folder)] == [4, 4, 4, 4]
    config = growing(SAMPLES, *settings)
    assert train(config) == 0
    assert [len(batch) for batch in batches(folder)] == [4, 4, 4, 4, 4, 4, 2]
    assert_all_once(config)
    # One schedule over what was expected, however often it was left.
    rates = logged(folder, "lr-DecoupledAdamW/group0")
    assert sorted(rates) == [1, 2, 3, 4, 5, 6, 7]
    assert rates[7] < rates[6] < rates[5]


def test_what_comes_while_the_run_waits_is_taken_up(
    growing: Growing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(open_pass, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(open_pass, "SIGN_OF_LIFE", 0.1)
    config = growing(10, f"train_loader.expected_samples={SAMPLES}", "train_loader.wait=300")
    saved = Path(str(config.save_folder)) / "ep0-ba2-rank0.pt"

    def bring_the_rest() -> None:
        wait_until(saved.exists, "the run has saved and waits")
        growing(SAMPLES)

    bringer = threading.Thread(target=bring_the_rest)
    bringer.start()
    with caplog.at_level("INFO"):
        assert train(config) == 0
    bringer.join()
    assert "the 10 samples that are there are used up: waiting up to 300 s for 16 more" in caplog.text
    assert "waiting for 16 more samples since" in caplog.text
    assert_all_once(config)


@pytest.mark.slow
def test_without_an_expectation_the_same_pass_goes_on_when_something_has_come(
    growing: Growing, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert train(growing(10)) == 0
    assert "16 samples that the JSON names were not there" in caplog.text
    assert train(growing(17)) == 0
    config = growing(SAMPLES)
    assert train(config) == 0
    assert [len(batch) for batch in batches(Path(str(config.save_folder)))] == [4, 4, 2, 4, 3, 4, 4, 1]
    assert_all_once(config)
    caplog.clear()
    with caplog.at_level("INFO"):
        assert train(config) == 0
    assert "finished already" in caplog.text
    assert_all_once(config)
    config.max_duration = "2ep"
    assert train(config) == 0
    assert_all_once(config, passes=2)


def test_what_is_no_longer_expected_ends_the_pass(growing: Growing, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing has moved since the start before, which was longer ago than give_up."""
    settings = (f"train_loader.expected_samples={SAMPLES}", "train_loader.wait=0", "train_loader.give_up=3600")
    config = growing(10, *settings)
    with pytest.raises(NotNow):
        train(config)
    launches = Path(str(config.save_folder)) / "launches.jsonl"
    start: dict[str, Any] = json.loads(launches.read_text())
    launches.write_text(json.dumps({**start, "time": "2020-01-01T00:00:00+00:00"}) + "\n")
    with caplog.at_level("INFO"):
        assert train(config) == 0
    assert caplog.text.count("16 of 26 expected samples are missing and nothing has arrived for 1 h") == 1
    assert len([name for batch in batches(launches.parent) for name in batch]) == 10
