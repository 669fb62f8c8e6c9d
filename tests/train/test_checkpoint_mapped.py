"""A checkpoint that goes to a GPU is mapped, so that the ranks of a machine do not each read all of it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import Tensor

from theworld.train.host_memory import checkpoint_mapped

BYTES = 8 * 2**20


def file_of(tensor: Tensor) -> str:
    """The file whose pages a tensor's memory is, or "": memory of the process' own."""
    address = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split(maxsplit=1)[0].split("-"))
        if start <= address < end:
            return line.split(maxsplit=5)[5] if len(line.split()) > 5 else ""
    raise AssertionError(f"{address:x} is in no mapping")


@pytest.mark.parametrize("gpu", [True, False])
def test_composers_way_of_loading_takes_no_memory_of_a_gpus_rank(tmp_path: Path, gpu: bool) -> None:
    path = tmp_path / "ep0-ba1-rank0.pt"
    torch.save({"weight": torch.ones(BYTES // 4)}, path)
    with checkpoint_mapped(str(path), gpu):
        weight: Tensor = torch.load(path, map_location="cpu", weights_only=False)["weight"]
    assert weight.eq(1).all()
    assert (file_of(weight) == str(path)) == gpu


def test_a_sharded_checkpoint_is_read_as_it_was(tmp_path: Path) -> None:

    buffer = io.BytesIO()
    torch.save(torch.ones(1), buffer)
    buffer.seek(0)
    with checkpoint_mapped(str(tmp_path), True):  # its parts are read from memory, which cannot be mapped
        assert torch.load(buffer, weights_only=False) == 1
