"""MLflow and W&B, the real packages, over two starts of one run."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.launcher import LONGEST, ROOT

EXTRAS = "pip install -c constraints.txt -e '.[mlflow,wandb]'"


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("mlflow") and find_spec("wandb")), reason=f"needs the extras: {EXTRAS}")
def test_both_trackers_go_on_with_one_run(mds_sample: Path, tmp_path: Path) -> None:
    folder, trackers = tmp_path / "run", "loggers={mlflow: {log_system_metrics: false}, wandb: {}}"
    command = [sys.executable, "recipes/train.py", "yamls/smoke.yaml", f"train_loader.dataset.remote={mds_sample}"]
    command += [f"save_folder={folder}", "train_loader.num_workers=0", trackers]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"TMPDIR": str(tmp_path), "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    for batches in (2, 4):
        # Both start processes of their own and look for them at the end: a fresh start, not a warm one.
        start = [*command, f"max_duration={batches}ba"]
        done = subprocess.run(start, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST)
        assert done.returncode == 0, done.stderr[-5000:]

    with sqlite3.connect(folder / "mlflow.db") as database:
        assert database.execute("select name, status from runs").fetchall() == [("smoke", "FINISHED")]
        steps = database.execute("select step from metrics where key = 'loss/train/total' order by step").fetchall()
    assert steps == [(0,), (1,), (2,), (3,)]
    # Without a server W&B keeps a folder a start; what it joins them by, when they are synced, is the id in the name.
    names = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert len(names) == 2
    assert len({name.rpartition("-")[2] for name in names}) == 1
