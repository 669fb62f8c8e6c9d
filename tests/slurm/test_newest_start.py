"""Job scripts ask nothing of SLURM when a newer start of the job is at work.

A lost node's script cannot be had without losing a node for minutes, so that SLURM's answers are played here; what it
answers was seen with real daemons.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCONTROL = """#!/bin/bash
echo "scontrol $*" >> "$ASKED"
case $* in
  *hostnames*) echo n1 ;;
  *"show job"*) echo "JobId=7 JobState=RUNNING Restarts=$RESTARTS EndTime=Unknown Reason=None" ;;
  requeue*) kill -TERM "$(cat "$SCRIPT")" ;;   # as SLURM ends the script of a job that it requeues
esac
"""
PYTHON = """#!/bin/bash
echo "python $*" >> "$ASKED"
echo "failed after batch 3; starting again"
"""


@pytest.mark.slow  # a script that was requeued waits for its end
@pytest.mark.parametrize(("exit_code", "newest"), [(85, True), (85, False), (1, True), (1, False)])
def test_a_script_of_an_older_start_leaves_the_job_alone(tmp_path: Path, exit_code: int, newest: bool) -> None:
    for name, text in (("scontrol", SCONTROL), ("srun", f"#!/bin/bash\nexit {exit_code}\n"), ("python", PYTHON)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    for folder in ("slurm", "recipes"):
        shutil.copytree(ROOT / folder, tmp_path / "checkout" / folder)
    (tmp_path / "asked").touch()
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "ASKED": str(tmp_path / "asked"),
        "SCRIPT": str(tmp_path / "pid"),
        "PYTHON": str(tmp_path / "python"),
        "RESTARTS": "1" if newest else "2",
        "SLURM_RESTART_COUNT": "1",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_NNODES": "1",
        "SLURM_JOB_PARTITION": "p",
        "SLURM_SUBMIT_DIR": str(tmp_path / "checkout"),
    }
    script = ["bash", "-c", f"echo $$ > {tmp_path}/pid; exec bash slurm/train.sbatch run.yaml"]
    with subprocess.Popen(
        script, cwd=tmp_path / "checkout", env=environment, text=True, stdout=subprocess.PIPE, start_new_session=True
    ) as running:
        try:
            printed, _ = running.communicate(timeout=60 if not newest else 20)
        except subprocess.TimeoutExpired:  # a script that was requeued waits for its end
            os.killpg(running.pid, 9)
            printed, _ = running.communicate()
    asked = (tmp_path / "asked").read_text()
    assert ("scontrol requeue 7" in asked) == newest, printed
    assert ("python recipes/after_crash.py" in asked) == (newest and exit_code == 1), printed
