"""benchmarks/harness under the real lmms-eval: questions get the answers that recipes/evaluate.py gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_evaluate_model import COUNT, SHORT, row, write_parquet

from tests.helpers.launcher import ROOT
from theworld.commands.evaluate import command
from theworld.inference.answer_file import answers_in

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed; docs/evaluation.md says how, in a venv of its own")

TASK = ROOT / "benchmarks" / "harness" / "tasks" / "spatialrgpt_bench"
LOCAL = """
include: {task}/spatialrgpt_bench.yaml
task: local
dataset_path: parquet
dataset_kwargs: {{data_files: {{val: {parquet}}}}}
generation_kwargs: {{max_new_tokens: 3, do_sample: false}}
"""


def test_answers_and_verdicts_are_those_of_evaluate(tmp_path: Path) -> None:
    bench = write_parquet(tmp_path / "bench", [row(number) for number in range(COUNT)])
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "local.yaml").write_text(LOCAL.format(task=TASK, parquet=next(bench.iterdir())))
    (tasks / "utils.py").write_bytes((TASK / "utils.py").read_bytes())
    model = ["--model", "theworld", "--model_args", "pretrained=builtin:tiny", "--batch_size", "2"]
    asked = ["--tasks", "local", "--include_path", str(tasks), "--output_path", str(tmp_path / "out"), "--log_samples"]
    plugin = {"LMMS_EVAL_PLUGINS": "benchmarks.harness", "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-m", "lmms_eval", *model, *asked], cwd=ROOT, env={**os.environ, **plugin}, check=True
    )
    lines = next((tmp_path / "out").rglob("*_samples_local.jsonl")).read_text().splitlines()
    samples = [json.loads(line) for line in lines]

    ours = ["builtin:tiny", "--bench", "spatialrgpt", "--data", str(bench), "--out", str(tmp_path / "ours"), *SHORT]
    assert command(ours) == 0
    answers = answers_in(next((tmp_path / "ours").iterdir()))
    assert len(samples) == len(answers) == COUNT
    for sample in samples:
        answer = answers[f"made_up_{sample['doc_id']}"]
        assert sample["filtered_resps"] == answer
        assert sample["undecided"] == 1 - (sample["right"] > 0), "this model says nothing"
