"""A model that learns to look: trained on the built-in sample's questions of left, it is right more often than anything
that does not see the picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SMOKE_YAML
from tests.helpers.launcher import composer, start
from theworld.commands.evaluate import command
from theworld.config.load import load_config
from theworld.data.shards.convert import convert
from theworld.synthetic import generate

pytestmark = pytest.mark.slow

PICTURES, SIDE, HELD_OUT = 6000, 128, 0.12
LONGEST = 2400.0
"""Seconds after which training counts as hanging: five times what it takes on a free core."""
LEFT = ("left_predicate", "left_choice")
"""The categories that are named beforehand: those of questions with the word."""
SEEDS = (17, pytest.param(18, marks=pytest.mark.long), pytest.param(19, marks=pytest.mark.long))
SETTINGS = (
    "global_train_batch_size=32",
    "device_train_microbatch_size=32",
    "max_duration=12ep",
    "save_interval=12ep",
    "scheduler.alpha_f=1.0",
    "model.freeze.vision=false",
    "train_loader.num_workers=0",
    "log_interval=20ba",
)


def one_question_of_left(entry: dict[str, Any]) -> dict[str, Any] | None:
    """The entry with the first of its questions of left and nothing else: two regions, ``Region [0]`` and ``[1]``."""
    at, turns = 0, entry["conversations"]
    for asked, answer in zip(turns[::2], turns[1::2], strict=True):
        mentions = asked["value"].count("<mask>")
        if mentions == 2 and re.search(r"to the left\b", asked["value"]):
            question = "<image>\n" + asked["value"].removeprefix("<image>\n")
            kept = {key: entry[key][at : at + 2] for key in ("bbox", "rle")}
            return {**entry, **kept, "conversations": [{**asked, "value": question}, answer]}
        at += mentions
    return None


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MDS data set of one question a picture, with a held-out share beside it."""
    folder = tmp_path_factory.mktemp("left")
    generate(folder / "raw", PICTURES, seed=9, size=SIDE, workers=2)
    entries = map(one_question_of_left, json.loads((folder / "raw" / "openspatial.json").read_bytes()))
    (folder / "left.json").write_text(json.dumps([entry for entry in entries if entry is not None]))
    settings = [
        f"convert.json={folder / 'left.json'}",
        f"convert.images={folder / 'raw' / 'images'}",
        f"convert.out={folder / 'mds'}",
        f"convert.holdout={HELD_OUT}",
    ]
    convert(load_config([SMOKE_YAML, *settings]).convert)
    return folder / "mds"


@pytest.mark.parametrize("seed", SEEDS)
def test_left_is_learnt(left: Path, tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "run"
    places = [f"train_loader.dataset.remote={left}", f"train_loader.dataset.local={tmp_path / 'cache'}"]
    trained = [*places, f"save_folder={folder}", f"seed={seed}", *SETTINGS]
    log = tmp_path / "log"
    assert start(composer(1, SMOKE_YAML, *trained), log).wait(LONGEST) == 0, log.read_text()
    asked = ["--bench", "holdout", "--data", f"{left}-eval", "--batch-size", "64", "--max-new-tokens", "16"]
    assert command([str(folder), *asked, "--out", str(tmp_path / "out"), "--json", str(tmp_path / "scores.json")]) == 0
    lines = {line["name"]: line for line in json.loads((tmp_path / "scores.json").read_text())["table"]}
    for name in LEFT:
        assert lines[name]["low"] > lines[name]["blind_floor"], lines[name]
