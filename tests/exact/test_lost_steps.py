"""Steps whose gradient is not finite: not made, written down, given again, and named if they fail again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from launching import ROOT, Run

pytestmark = [pytest.mark.slow, pytest.mark.dist]

SAMPLES, BATCH = 24, 4
SETTINGS = [f"global_train_batch_size={BATCH}", "device_train_microbatch_size=1", "save_interval=1ba"]
POISON = '''
import torch
from composer.core import Callback
from composer.utils import dist


class Poison(Callback):
    """Spoils a gradient of the last rank in some batches."""

    def __init__(self, batches):
        self.batches = batches

    def after_train_batch(self, state, logger):
        if int(state.timestamp.batch) in self.batches and dist.get_global_rank() == dist.get_world_size() - 1:
            gradients = [one.grad for one in state.model.parameters() if one.grad is not None]
            gradients[-1].view(-1)[0] = torch.nan
'''


def poisoned(run: Run, *batches: int) -> list[str]:
    """Settings with which the gradient of these batches is not finite."""
    path = run.folder / "own_poison.py"
    path.write_text(POISON)
    return [f"code_paths=[{path}]", f"callbacks={{'own_poison:Poison': {{batches: [{','.join(map(str, batches))}]}}}}"]


def audit(run: Run) -> tuple[int, str]:
    command = [sys.executable, "recipes/audit.py", str(run.save_folder), str(run.mds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_samples_of_a_lost_step_are_given_again_also_after_a_resume_on_fewer_ranks(
    many_samples: Path, folder: Path
) -> None:
    run = Run(many_samples, folder, SETTINGS)
    run.arrive(SAMPLES)
    assert run.train(2, *poisoned(run, 1), "max_duration=3ba") == 0, run.output
    assert "batch 2: the gradient is not finite" in run.output
    lost = [name for line in run.lines() if line["batch"] == 1 for name in line["lost"]]
    assert len(lost) == BATCH
    code, printed = audit(run)
    assert code == 75, printed
    assert "at most once: yes" in printed

    assert run.train(1) == 0, run.output
    last = [name for line in run.lines() if line["batch"] == SAMPLES // BATCH for name in line["ids"]]
    assert sorted(last) == sorted(lost)
    code, printed = audit(run)
    assert code == 0, printed
    assert f"seen once   {SAMPLES:>9}" in printed
    state = torch.load(run.save_folder / "latest-rank0.pt", weights_only=False, map_location="cpu")["state"]
    assert all(weight.isfinite().all() for weight in state["model"].values() if weight.is_floating_point())


def test_what_fails_again_was_never_trained_on(many_samples: Path, folder: Path) -> None:
    run = Run(many_samples, folder, SETTINGS)
    run.arrive(SAMPLES)
    assert run.train(1, *poisoned(run, 1, SAMPLES // BATCH)) == 0, run.output
    assert max(line["batch"] for line in run.lines()) == SAMPLES // BATCH, "given again more than once"
    code, printed = audit(run)
    assert code == 1, printed
    assert f"never trained on, in steps that were not finite: {BATCH}" in printed
    assert "at most once: yes" in printed
    assert json.loads((run.save_folder / "ledger" / "passes.jsonl").read_text())["batches"] == SAMPLES // BATCH + 1
