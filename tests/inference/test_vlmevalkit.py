"""benchmarks/harness under the real VLMEvalKit: questions get the answers that recipes/evaluate.py gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_evaluate_model import COUNT, SHORT, row, write_parquet

from tests.helpers.launcher import ROOT
from theworld.commands.evaluate import command
from theworld.inference.answer_file import answers_in

pytestmark = pytest.mark.skipif(
    find_spec("vlmeval") is None,
    reason="VLMEvalKit (ms-vlmeval) is not installed; docs/evaluation.md says how, in a venv of its own",
)


def evaluate(out: Path, *more: str) -> str:
    """Run VLMEvalKit on the tiny model. Returns what it printed."""
    data = out.with_name("lmu")
    data.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.harness.vlmevalkit", "builtin:tiny", "--max-new-tokens", "3"]
    ran = subprocess.run(
        [*command, "--data", "SpatialRGPT-Bench", "--work-dir", str(out), *more],
        cwd=ROOT,
        env={**os.environ, "LMUData": str(data), "PRED_FORMAT": "json", "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return ran.stdout


def test_answers_and_verdicts_are_those_of_evaluate(tmp_path: Path) -> None:
    bench = write_parquet(tmp_path / "bench", [row(number) for number in range(COUNT)])
    said = evaluate(tmp_path / "kit", "--bench", str(bench))
    rows = json.loads(next((tmp_path / "kit").rglob("*_SpatialRGPT-Bench.json")).read_text())

    ours = ["builtin:tiny", "--bench", "spatialrgpt", "--data", str(bench), "--out", str(tmp_path / "ours"), *SHORT]
    assert command(ours) == 0
    answers = answers_in(next((tmp_path / "ours").iterdir()))
    assert {str(line["index"]): line["prediction"] for line in rows} == answers
    assert len(answers) == COUNT
    assert f'"undecided": {float(COUNT)}' in said, "this model says nothing"


def test_the_benchmark_needs_its_place(tmp_path: Path) -> None:
    assert "--bench is needed" in evaluate(tmp_path / "kit")
