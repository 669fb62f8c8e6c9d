"""A checkpoint that goes to a GPU is mapped, so that the ranks of a machine do not each read all of it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import Tensor

from theworld.train.host_memory import checkpoint_mapped

BYTES = 64 * 2**20


def own_memory() -> int:
    """Bytes of this process that no other shares and no file holds."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


@pytest.mark.parametrize("gpu", [True, False])
def test_composers_way_of_loading_takes_no_memory_of_a_gpus_rank(tmp_path: Path, gpu: bool) -> None:
    path = tmp_path / "ep0-ba1-rank0.pt"
    torch.save({"weight": torch.ones(BYTES // 4)}, path)
    before = own_memory()
    with checkpoint_mapped(str(path), gpu):
        weight: Tensor = torch.load(path, map_location="cpu", weights_only=False)["weight"]
    taken = own_memory() - before
    assert weight[::100_000].eq(1).all()
    assert taken < BYTES / 4 if gpu else taken > BYTES / 2


def test_a_sharded_checkpoint_is_read_as_it_was(tmp_path: Path) -> None:

    buffer = io.BytesIO()
    torch.save(torch.ones(1), buffer)
    buffer.seek(0)
    with checkpoint_mapped(str(tmp_path), True):  # its parts are read from memory, which cannot be mapped
        assert torch.load(buffer, weights_only=False) == 1
