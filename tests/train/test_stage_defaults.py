"""Defaults that cost nothing to have: the fused optimizer, the allocator; an old run goes on as it began."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.test_train import losses, run_config, saved_state
from theworld.config.schema import Config
from theworld.train.run import train

ROOT = Path(__file__).parents[2]


def fused(config: Config) -> object:
    (optimizer,) = saved_state(config)["optimizers"].values()
    return optimizer["param_groups"][0].get("fused")


def test_adamw_is_fused_and_an_old_run_goes_on_as_it_was(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    def run(folder: str, optimizer: str, batches: int) -> Config:
        overrides = ("model.freeze.language=true", f"optimizer={optimizer}", f"max_duration={batches}ba")
        (tmp_path / folder).mkdir(exist_ok=True)
        config = run_config(raw_sample, mds_sample, tmp_path / folder, *overrides, "scheduler.t_warmup=0ba")
        assert train(config) == 0
        return config

    assert fused(run("new", "{name: adamw, lr: 1e-3}", 1)) is True
    old = "{name: adamw, lr: 1e-3, fused: false}"
    assert fused(run("old", old, 1)) is False
    resumed = run("old", "{name: adamw, lr: 1e-3}", 2)
    assert fused(resumed) is False
    assert len(losses(resumed.save_folder)) == 2
    assert fused(run("decoupled", "{name: decoupled_adamw, lr: 1e-3}", 1)) is None


@pytest.mark.parametrize(("given", "found"), [(None, "expandable_segments:True"), ("backend:native", "backend:native")])
def test_the_allocator_grows_segments_unless_told_otherwise(
    given: str | None, found: str, mds_sample: Path, tmp_path: Path
) -> None:
    (tmp_path / "show_allocator.py").write_text(
        "import os\n\nprint(os.environ['PYTORCH_CUDA_ALLOC_CONF'])\nraise OSError\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTORCH_CUDA_ALLOC_CONF", None)
    if given is not None:
        environment["PYTORCH_CUDA_ALLOC_CONF"] = given
    command = [sys.executable, "recipes/train.py", "yamls/smoke.yaml", f"train_loader.dataset.remote={mds_sample}"]
    command += [f"save_folder={tmp_path / 'run'}", f"code_paths=[{tmp_path / 'show_allocator.py'}]"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.strip() == found
