"""The profiler from the YAML: traces that a viewer opens, the costliest operators in the log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import SMOKE_YAML
from tests.train.test_train import losses, run_config
from theworld.config.load import load_config
from theworld.errors import UserError
from theworld.train.check_training import check_training
from theworld.train.run import train

PROFILER = "profiler={skip_first: 1, warmup: 1, active: 2, repeat: 1}"


def test_a_trace_and_a_table_of_two_batches(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = run_config(raw_sample, mds_sample, tmp_path, "max_duration=5ba")
    assert train(plain) == 0
    (tmp_path / "profiled").mkdir()
    config = run_config(raw_sample, mds_sample, tmp_path / "profiled", "max_duration=5ba", PROFILER)
    with caplog.at_level("INFO"):
        assert train(config) == 0
    assert losses(config.save_folder) == losses(plain.save_folder)
    (path,) = (Path(str(config.save_folder)) / "traces").iterdir()
    assert path.name == "start1-rank0-ba4.pt.trace.json"
    events = json.loads(path.read_text())["traceEvents"]
    assert any(event.get("name") == "aten::mm" and event.get("dur", 0) > 0 for event in events)
    steps = {event["name"] for event in events if str(event.get("name")).startswith("ProfilerStep#")}
    assert len(steps) == 2
    (told,) = [record.getMessage() for record in caplog.records if "costliest operators" in record.getMessage()]
    rows = [line for line in told.splitlines() if "aten::" in line]
    assert str(path) in told
    assert 1 <= len(rows) <= 10
    assert not [record for record in caplog.records if record.name == "composer.profiler.torch_profiler"]


@pytest.mark.parametrize("batches", [2, 3])
def test_a_run_that_ends_while_it_is_profiled_ends_well(
    batches: int, raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    config = run_config(raw_sample, mds_sample, tmp_path, f"max_duration={batches}ba", PROFILER)
    assert train(config) == 0


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["profiler={active: 0}"], r"profiler\.active: 0 is too small; the least is 1"),
        (["profiler={wait: -1}"], r"profiler\.wait: -1 is too small"),
        (["profiler={}", "device_train_microbatch_size=auto", "device=null"], "auto does not work with the profiler"),
    ],
)
def test_what_cannot_be_profiled_is_one_line(overrides: list[str], says: str, mds_sample: Path) -> None:
    config = load_config([SMOKE_YAML, f"convert.out={mds_sample}", *overrides])
    with pytest.raises(UserError, match=says):
        check_training(config, 1)
