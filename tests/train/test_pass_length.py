"""The warning that the learning rate will have decayed before the pass is over."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from tests.helpers.loader import open_data, smoke_on
from theworld.config.schema import ConvertConfig
from theworld.data.batches.expectation import Expectation
from theworld.data.shards.convert import convert
from theworld.train.callbacks.pass_length import announce


@pytest.mark.parametrize("fate", ["has not arrived", "is damaged for good"])
def test_only_what_may_still_come_is_warned_of(
    raw_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, fate: str
) -> None:
    (tmp_path / "images").mkdir()
    entries = json.loads((raw_sample / "openspatial.json").read_text())[:6]
    (tmp_path / "openspatial.json").write_text(json.dumps(entries))
    for number, one in enumerate(entries):
        name = f"{one['filename']}.jpg"
        if number:
            os.link(raw_sample / "images" / name, tmp_path / "images" / name)
        elif fate == "is damaged for good":
            (tmp_path / "images" / name).write_bytes((raw_sample / "images" / name).read_bytes()[:1000])
    settings = {"json": str(tmp_path / "openspatial.json"), "images": str(tmp_path / "images"), "workers": 1}
    convert(ConvertConfig(out=str(tmp_path / "mds"), **settings))
    data = open_data(smoke_on(tmp_path / "mds", tmp_path / "cache", "train_loader.num_workers=0"))
    with caplog.at_level(logging.WARNING):
        announce(data.dataset, Expectation(None))
    data.close()
    assert ("the JSON has 6 samples for it but the schedule runs over the 5" in caplog.text) == (fate[:3] == "has")
