"""Runs in which something stands still, under the real launcher: what the log says, how they end, what is lost."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from launching import ROOT, SMOKE, Run, ranks_of

from tests.helpers.launcher import LONGEST, ended

pytestmark = [pytest.mark.slow, pytest.mark.dist]

SETTINGS = [
    "global_train_batch_size=4",
    "device_train_microbatch_size=2",
    "save_interval=100ba",
    "train_loader.prefetch_factor=1",
    "watchdog={warn: 3, abort: 500}",
]


def worker_of(rank: psutil.Process) -> psutil.Process:
    """Its loader's one worker."""
    (worker,) = (child for child in rank.children() if "resource_tracker" not in " ".join(child.cmdline()))
    return worker


def line_of(run: Run, text: str) -> str:
    """Wait for a line of the log."""
    end = time.monotonic() + LONGEST
    while True:
        found = [line for line in run.output.splitlines() if text in line]
        if found:
            return found[0]
        assert time.monotonic() < end, run.output
        time.sleep(0.05)


def status(run: Run) -> dict[str, Any]:
    shown = subprocess.run(
        [sys.executable, "recipes/status.py", str(run.save_folder), "--json"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    return json.loads(shown.stdout)


def audited(run: Run) -> subprocess.CompletedProcess[str]:
    audit = [sys.executable, "recipes/audit.py", str(run.save_folder), str(run.mds)]
    return subprocess.run(audit, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def test_a_stopped_worker_is_named_a_stop_saves_at_once_and_nothing_is_lost(many_samples: Path, folder: Path) -> None:
    run = Run(many_samples, folder, SETTINGS)
    run.arrive(100)
    trainer = run.start(2)
    assert run.wait_for_batches(trainer, 3), run.output
    ranks = ranks_of(trainer)
    worker = worker_of(ranks[1])
    worker.send_signal(signal.SIGSTOP)
    said = line_of(run, "waiting for the loader (rank 1")
    pattern = (
        r"no batch for \d+ s: waiting for the loader \(rank 1, worker 0, process (\d+) \(stopped\), shard gen-00000/"
    )
    found = re.search(pattern, said)
    assert found, said
    assert int(found[1]) == worker.pid
    for process in (*ranks, worker):  # as SLURM does
        process.send_signal(signal.SIGTERM)
    assert ended(trainer) == 85, run.output
    done = max(line["batch"] for line in run.lines()) + 1
    assert (run.save_folder / f"ep0-ba{done}-rank0.pt").exists()
    found = status(run)
    assert (found["state"], found["preemptions"], found["steps_lost"]) == ("stopped", 1, 0)

    assert run.train(2) == 0, run.output
    assert "; 0 steps were lost" in run.output
    assert audited(run).returncode == 0
    found = status(run)
    assert (found["state"], found["starts"], found["batch"]) == ("finished", 2, 25)
    assert len(list((run.save_folder / "tensorboard").rglob("events.*"))) == 2


def test_a_stopped_rank_ends_the_run_at_a_stop_or_at_the_limit_with_exit_code_75(
    many_samples: Path, folder: Path
) -> None:
    run = Run(many_samples, folder, [*SETTINGS, "save_interval=2ba", "preemption.grace=9"])
    run.arrive(100)
    trainer = run.start(2)
    assert run.wait_for_batches(trainer, 5), run.output
    ranks = ranks_of(trainer)
    ranks[1].send_signal(signal.SIGSTOP)
    line_of(run, "waiting for rank 1, which gives no sign of life")
    for rank in ranks:
        rank.send_signal(signal.SIGTERM)
    assert ended(trainer) == 75, run.output
    (error,) = errors_of(run)
    assert (
        "asked to stop (SIGTERM), but no checkpoint can be saved without rank 1, which gives no sign of life" in error
    )

    found = status(run)
    assert (found["state"], found["last_end"]["exit_code"], found["preemptions"]) == ("stopped", 75, 0)

    # Rank 0 this time: the launcher has to kill it, and its exit code is then the kill's.
    trainer = run.start(2, "watchdog.abort=40")
    assert run.wait_for_batches(trainer, 5), run.output
    ranks_of(trainer)[0].send_signal(signal.SIGSTOP)
    code = ended(trainer)
    assert code not in (0, 75), run.output
    assert "(most recent call first)" in run.output, "the stacks"
    (error,) = errors_of(run)
    assert error.startswith("error: rank 1: no batch for")
    assert "waiting for rank 0, which gives no sign of life" in error
    asked = [sys.executable, "recipes/after_crash.py", str(code), SMOKE, f"save_folder={run.save_folder}"]
    told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    assert "waiting for rank 0, which gives no sign of life" in told.stdout
    assert not (run.save_folder / "failures.jsonl").exists()

    assert run.train(2) == 0, run.output
    assert audited(run).returncode == 0
    found = status(run)
    assert (found["state"], found["starts"]) == ("finished", 3)
    assert 0 <= found["steps_lost"] < 4
    assert 'theworld_batches_total{run="smoke"} 25.0' in (run.save_folder / "metrics.prom").read_text()


def errors_of(run: Run) -> list[str]:
    return [line for line in run.output.splitlines() if line.startswith("error:")]
