"""A remote that cannot be reached, under the real launcher: all ranks save and leave together, and go on later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT, Run

from tests.helpers.launcher import ended
from tests.helpers.opened import FOLDER

pytestmark = [pytest.mark.slow, pytest.mark.dist]


def test_a_shard_out_of_reach_ends_all_ranks_with_a_checkpoint_and_exit_code_75(
    many_samples: Path, folder: Path
) -> None:
    settings = ["global_train_batch_size=4", "device_train_microbatch_size=2", "save_interval=100ba"]
    run = Run(
        many_samples, folder, [*settings, "train_loader.dataset.shuffle=false", "train_loader.dataset.patience=3"]
    )
    run.arrive(48)
    shard = sorted(run.mds.glob("gen-*/*.mds"))[-1]
    away = shard.rename(folder / "away")
    assert run.train(2) == 75, run.output
    assert "waiting for shard gen-00000" in run.output
    errors = [line for line in run.output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, run.output
    assert f"{shard.name}: cannot be fetched whole" in errors[0]
    done = max(line["batch"] for line in run.lines()) + 1
    assert 0 < done < 12
    assert (run.save_folder / f"ep0-ba{done}-rank0.pt").exists()

    away.rename(shard)
    opened = folder / "opened"
    opened.mkdir()
    noted = run.start(2, "callbacks={'tests.helpers.opened:Opened': {}}", environment={FOLDER: str(opened)})
    assert ended(noted) == 0, run.output
    assert "; 0 steps were lost" in run.output
    # Rank 0 alone reads what the others wrote: with 512 ranks that is 512 files, not 262,144.
    assert set((opened / "0").read_text().split()) == {"rank0.jsonl", "rank1.jsonl"}
    assert set((opened / "1").read_text().split()) == {"rank1.jsonl"}
    audit = [sys.executable, "recipes/audit.py", str(run.save_folder), str(run.mds)]
    checked = subprocess.run(audit, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    assert not (run.save_folder / "failed_ranks").exists()
