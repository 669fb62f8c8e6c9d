"""Two starts of one run under the real launcher: the second is refused, and an old one that lives on is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT, Run

from tests.helpers.launcher import ended
from tests.slurm.cluster import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.dist]

SETTINGS = ["global_train_batch_size=2", "device_train_microbatch_size=1", "save_interval=4ba"]


def test_the_same_command_twice_and_an_old_trainer_that_lives_on(many_samples: Path, folder: Path) -> None:
    """The old one stands still while its job is started again on another node, as when slurmd is lost; then goes on."""
    run = Run(many_samples, folder, SETTINGS)
    run.arrive(150)
    first_start = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "0"}
    twice = [run.start(1, environment=first_start) for _ in range(2)]
    wait_until(lambda: any(start.poll() is not None for start in twice), "one of the two has ended")
    loser, winner = sorted((0, 1), key=lambda number: twice[number].poll() is None)
    refused, old_log = run.logs[loser].read_text(), run.logs[winner]
    old = twice[winner]
    assert twice[loser].wait() == 2, refused
    errors = [line for line in refused.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert f"{run.save_folder} is in use by attempt 1 of the run" in errors[0]
    assert "Traceback" not in refused

    assert run.wait_for_batches(old, 5), old_log.read_text()
    os.killpg(old.pid, signal.SIGSTOP)
    new = run.start(1, environment={**first_start, "SLURM_RESTART_COUNT": "1"})
    assert run.wait_for_batches(new, 1), run.output
    os.killpg(old.pid, signal.SIGCONT)
    assert ended(old) == 2, old_log.read_text()
    text = old_log.read_text()
    assert "error: a newer start of the run, attempt 2" in text
    assert "Traceback" not in text
    assert ended(new) == 0, run.output
    lines = run.lines()
    begun = min(line["batch"] for line in lines if line["launch"] == 2)
    # At most the batch that the old one was in when it was stopped.
    assert max(line["batch"] for line in lines if line["launch"] == 1) < begun + 6
    done = subprocess.run(
        [sys.executable, "recipes/audit.py", str(run.save_folder), str(run.mds)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "exactly once: yes" in done.stdout
