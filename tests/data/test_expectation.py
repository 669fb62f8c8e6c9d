"""How many samples are expected, by the setting, by what is lost on the way, and by what earlier starts saw."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from theworld.config.load import load_config
from theworld.config.schema import Config
from theworld.data.batches.expectation import progress_facts, remember
from theworld.data.cache.snapshot import Generation, Snapshot
from theworld.errors import EXIT_BAD_INPUT, UserError

SNAPSHOT = Snapshot(
    "mds", (Generation("gen-00000", 40, 1, "f"),), ({"samples": 40},), json_entries=250, json_samples=240
)


def config(tmp_path: Path, *overrides: str) -> Config:
    return load_config(["yamls/smoke.yaml", f"convert.images={tmp_path}", *overrides])


def start(found: Config, snapshot: Snapshot, hours_ago: float) -> dict[str, Any]:
    """A line of launches.jsonl."""
    moment = datetime.now(UTC) - timedelta(hours=hours_ago)
    facts = progress_facts(found, snapshot)
    return {"time": moment.isoformat(), "expected_samples": found.train_loader.expected_samples, **facts}


def test_nothing_more_is_expected_by_default(tmp_path: Path) -> None:
    assert remember(config(tmp_path), [], SNAPSHOT).samples(SNAPSHOT) is None


def test_auto_is_what_the_data_set_will_have(tmp_path: Path) -> None:
    found = remember(config(tmp_path, "train_loader.expected_samples=auto"), [], SNAPSHOT)
    assert found.samples(SNAPSHOT) == 240
    assert found.samples(replace(SNAPSHOT, json_samples=235)) == 235
    assert found.samples(replace(SNAPSHOT, json_samples=None)) == 250
    with pytest.raises(UserError, match="expected_samples: auto, but mds does not say") as refused:
        found.samples(replace(SNAPSHOT, json_samples=None, json_entries=None))
    assert refused.value.exit_code == EXIT_BAD_INPUT


def test_a_number_is_lessened_by_what_was_lost_since_it_was_set(tmp_path: Path) -> None:
    ours = config(tmp_path, "train_loader.expected_samples=200")
    before = config(tmp_path, "train_loader.expected_samples=100")
    assert remember(ours, [], SNAPSHOT).samples(replace(SNAPSHOT, json_samples=233)) == 193
    starts = [
        start(before, replace(SNAPSHOT, json_samples=300), 5),
        start(ours, replace(SNAPSHOT, json_samples=260), 4),
        start(ours, SNAPSHOT, 3),
    ]
    assert remember(ours, starts, SNAPSHOT).samples(SNAPSHOT) == 180
    assert remember(ours, starts, SNAPSHOT).samples(replace(SNAPSHOT, json_samples=270)) == 200, "another, longer JSON"
    old_release = [{"time": starts[0]["time"], "launch": 1, "samples": 40}]
    assert remember(ours, old_release, SNAPSHOT).samples(SNAPSHOT) == 200


def test_given_up_when_neither_data_set_nor_download_has_moved(tmp_path: Path) -> None:
    ours = config(tmp_path, "train_loader.expected_samples=auto")
    assert not remember(ours, [], SNAPSHOT).is_given_up()
    assert not remember(ours, [start(ours, SNAPSHOT, 23)], SNAPSHOT).is_given_up()
    starts = [start(ours, SNAPSHOT, 25), start(ours, SNAPSHOT, 2)]
    assert remember(ours, starts, SNAPSHOT).is_given_up()
    assert remember(config(tmp_path, "train_loader.give_up=5000"), [start(ours, SNAPSHOT, 2)], SNAPSHOT).is_given_up()
    rejected_since = replace(SNAPSHOT, json_samples=239)
    assert not remember(ours, starts, rejected_since).is_given_up()
    grown = replace(SNAPSHOT, generations=(*SNAPSHOT.generations, Generation("gen-00001", 1, 1, "g")))
    assert not remember(ours, starts, grown).is_given_up()
    (tmp_path / ".download").mkdir()
    (tmp_path / ".download" / "whole").touch()
    assert not remember(ours, starts, SNAPSHOT).is_given_up(), "an image has arrived"
    stale = time.time() - 100_000
    os.utime(tmp_path / ".download" / "whole", (stale, stale))
    starts = [start(ours, SNAPSHOT, 25)]
    assert remember(ours, starts, SNAPSHOT).is_given_up()
