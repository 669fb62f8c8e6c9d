"""recipes/preflight.py through the composer launcher: rank 0 speaks, the network between the ranks is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.dist
def test_two_ranks(mds_sample: Path, tmp_path: Path) -> None:
    launcher = str(Path(sys.executable).with_name("composer"))
    settings = ["yamls/smoke.yaml", f"convert.out={mds_sample}", f"save_folder={tmp_path}", "device=cpu", "--json"]
    command = [launcher, "-n", "2", "recipes/preflight.py", *settings]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found = {one["name"]: one for one in json.loads(line)["verdicts"]}
    assert found["network"]["figures"]["all_ranks_gb_s"] > 0
    assert [one["rank"] for one in found["devices"]["figures"]["ranks"]] == [0, 1]
    assert found["configuration"]["text"].startswith("2 ranks")
    command[-2] = "global_train_batch_size=9"
    failed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=600, check=False)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr
