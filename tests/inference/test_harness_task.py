"""SpatialRGPT-Bench as a task of lmms-eval: what its functions make of a row, which needs no lmms-eval."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from test_evaluate_model import row, write_parquet

from tests.helpers.launcher import ROOT
from theworld.inference.benchmark_data import read_benchmark

FUNCTIONS = ROOT / "benchmarks" / "harness" / "tasks" / "spatialrgpt_bench" / "utils.py"


@pytest.fixture(scope="module")
def task() -> ModuleType:
    specification = importlib.util.spec_from_file_location("task_of_harness", FUNCTIONS)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("answer", "right", "undecided"),
    [("Yes, it is.", 1, 0), ("No, Region [0] is below Region [1].", 0, 0), ("", 0, 1), ("Yes. No.", 0, 1)],
)
def test_an_answer_has_the_scorers_verdict(task: ModuleType, answer: str, right: int, undecided: int) -> None:
    expected = {"right": right, "right_qualitative": right, "undecided": undecided}
    assert task.verdict(row(0), [answer]) == expected


def test_a_length_is_quantitative(task: ModuleType) -> None:
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "Region [0] is 2 meters wide."}]
    wide = row(0) | {"conversations": str(turns), "qa_info": str({"category": "width_data"})}
    wide["text_q"] = "How wide is Region [0]?"
    assert task.verdict(wide, ["It is 2.2 m wide."]) == {"right": 1, "right_quantitative": 1, "undecided": 0}
    assert task.verdict(wide, ["It is 3 m wide."])["right"] == 0


def test_the_picture_is_the_one_that_evaluate_shows(task: ModuleType, tmp_path: Path) -> None:
    shown = read_benchmark(str(write_parquet(tmp_path / "bench", [row(0)])), None)[0][0].draw()[0]
    as_picture = row(0) | {"image": Image.open(io.BytesIO(row(0)["image"]["bytes"]))}
    for given in (row(0), as_picture):
        (picture,) = task.pictures(given)
        assert picture.tobytes() == shown.tobytes()
