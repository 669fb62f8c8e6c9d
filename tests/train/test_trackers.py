"""MLflow and W&B, the real packages, over two starts of one run that also generates answers."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.helpers.extras import needs_extra
from tests.helpers.launcher import LONGEST, ROOT
from theworld.train.callbacks.answer_table import COLUMNS


@needs_extra("mlflow,wandb", "mlflow", "wandb")
def test_both_trackers_go_on_with_one_run(mds_sample: Path, tmp_path: Path) -> None:
    folder, trackers = tmp_path / "run", "loggers={mlflow: {log_system_metrics: false}, wandb: {}}"
    command = [sys.executable, "recipes/train.py", "yamls/smoke.yaml", f"train_loader.dataset.remote={mds_sample}"]
    asked = f"{{interval: 2ba, data: {mds_sample}, limit: 3, max_new_tokens: 4, pictures: 2}}"
    command += [f"save_folder={folder}", "train_loader.num_workers=0", trackers]
    command += [f"callbacks={{generation_eval: {asked}}}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {
        "TMPDIR": str(tmp_path),
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "WANDB_DATA_DIR": str(tmp_path),
    }
    for batches in (2, 4):
        # Both start processes of their own and look for them at the end: a fresh start, not a warm one.
        start = [*command, f"max_duration={batches}ba"]
        done = subprocess.run(start, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST)
        assert done.returncode == 0, done.stderr[-5000:]

    with sqlite3.connect(folder / "mlflow.db") as database:
        assert database.execute("select name, status from runs").fetchall() == [("smoke", "FINISHED")]
        steps = database.execute("select step from metrics where key = 'loss/train/total' order by step").fetchall()
        of_answers = "select step from metrics where key = 'generation_eval/overall/right' order by step"
        assert database.execute(of_answers).fetchall() == [(2,), (4,)]
    assert steps == [(0,), (1,), (2,), (3,)]
    # Without a server W&B keeps a folder a start; what it joins them by, when they are synced, is the id in the name.
    names = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert len(names) == 2
    assert len({name.rpartition("-")[2] for name in names}) == 1

    tables = list((tmp_path / "wandb").rglob("media/table/generation_eval/*.json"))
    assert len(tables) == len(names)
    for path in tables:
        table = json.loads(path.read_text())
        assert table["columns"] == COLUMNS
        assert len(table["data"]) == 2
        for picture, question, reference, _, verdict in table["data"]:
            assert picture == "Image"
            assert "Region [" in question
            assert reference
            assert verdict in ("right", "wrong", "undecided")
    # What W&B sends of a table with pictures waits here; without a server it stays.
    waiting = {path.read_bytes()[:4] for path in (tmp_path / "artifacts" / "staging").iterdir()}
    assert b"\x89PNG" in waiting
