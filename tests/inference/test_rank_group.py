"""Ranks that have met come to their end: a group that one of them destroys at once may never be gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.slurm.cluster import free_ports
from theworld.errors import UserError
from theworld.rank_group import own_devices


@pytest.mark.slow
@pytest.mark.dist
def test_ranks_end_behind_their_last_word() -> None:
    program = Path(ROOT) / "tests" / "helpers" / "ranks_that_end.py"
    command = [sys.executable, str(program), str(free_ports(5))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rank_has_the_gpu_of_its_number_and_one_alone_has_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # there are none here
    assert own_devices() == ["cuda:0", "cuda:1"]
    for name, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert own_devices() == ["cuda:1"]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(UserError, match="2 GPUs for 4 ranks of this machine"):
        own_devices()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert own_devices() == ["cpu"]
