"""How many bytes a checkpoint will take, before anything of it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor

ROOM_FOR_NAMES = 64 << 10
"""What torch writes beside the values of any checkpoint, about."""


def bytes_to_write(value: Any, whole: bool, seen: set[int] | None = None) -> int:
    """What this rank writes of a state: its shards, and what is not sharded if it is the one that writes that.

    Args:
        value: the state, dictionaries and lists of tensors and plain values.
        whole: whether this rank writes what is not sharded.
        seen: memory that has been counted: weights that are tied are written once.
    """
    seen = set() if seen is None else seen
    if isinstance(value, DTensor):
        mesh = value.device_mesh
        places = mesh.get_coordinate() or []
        copies = [place for place, how in zip(places, value.placements, strict=True) if how.is_replicate()]
        return bytes_to_write(value.to_local(), True, seen) if not any(copies) else 0
    if isinstance(value, Tensor):
        memory = value.untyped_storage().data_ptr()
        if not whole or (memory and memory in seen):
            return 0
        seen.add(memory)
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(bytes_to_write(one, whole, seen) for one in value.values())
    if isinstance(value, (list, tuple)):
        return sum(bytes_to_write(one, whole, seen) for one in value)
    return len(value) if whole and isinstance(value, (str, bytes)) else 0
