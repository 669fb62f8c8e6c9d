"""Composer's classes and a user's own, from the command line of a real run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.helpers.launcher import run
from theworld.train import registry

ROOT = Path(__file__).parents[2]
NEEDS_A_PACKAGE = ("mlperf",)
"""Usable callbacks that want a package of their own and say so in one line without it."""
SETTINGS = {
    "early_stopper": "{monitor: AnswerLoss, dataloader_label: eval}",
    "threshold_stopper": "{monitor: AnswerLoss, dataloader_label: eval, threshold: 0.0}",
    "gradient_clipping": "{clipping_type: norm, clipping_threshold: 1.0}",
}
OWN = """
from composer.core import Callback


class Mine(Callback):
    def __init__(self, every=1):
        self.every = every

    def batch_end(self, state, logger):
        if int(state.timestamp.batch) % self.every == 0:
            print("own callback at", int(state.timestamp.batch), flush=True)
"""


def usable(table: registry.Table) -> list[str]:
    return [name for name, build in table.items() if not isinstance(build, str) and name not in NEEDS_A_PACKAGE]


def train(mds: Path, folder: Path, *settings: str) -> str:
    command = [sys.executable, "recipes/train.py", "yamls/smoke.yaml", f"train_loader.dataset.remote={mds}"]
    command += [f"save_folder={folder / 'run'}", "report=false", "max_duration=2ba", *settings]
    code = run(command, folder / "log", {**os.environ, "TMPDIR": str(folder)})
    shown = (folder / "log").read_text()
    assert code == 0, shown[-5000:]
    return shown


@pytest.mark.slow
def test_all_callbacks_and_an_own_one(mds_sample: Path, tmp_path: Path) -> None:
    (tmp_path / "own_doors.py").write_text(OWN)
    settings = SETTINGS | {"generation_eval": f"{{data: '{mds_sample}', limit: 2, max_new_tokens: 2}}"}
    named = [f"{name}: {settings.get(name, '{}')}" for name in usable(registry.CALLBACKS)]
    every = ", ".join([*named, "'own_doors:Mine': {every: 2}"])
    shown = train(mds_sample, tmp_path, f"callbacks={{{every}}}", f"code_paths=[{tmp_path / 'own_doors.py'}]")
    assert "own callback at 2" in shown
    assert "own callback at 1" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", usable(registry.ALGORITHMS))
def test_each_algorithm(mds_sample: Path, tmp_path: Path, algorithm: str) -> None:
    train(mds_sample, tmp_path, f"algorithms={{{algorithm}: {SETTINGS.get(algorithm, '{}')}}}")
