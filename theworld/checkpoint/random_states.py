"""The random generators' states of all ranks as one value of a sharded checkpoint.

Composer writes each generator of each rank as a value of its own: more of them than everything else beside weights and
optimizer from about 17 ranks on.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

GENERATORS = ("torch", "cuda")
"""Those whose state is a tensor of bytes."""


def pack_random_states(ranks: list[dict[str, Any]]) -> Tensor:
    """Bytes, of which :func:`unpack_random_states` makes the states again; 20 kB a rank.

    Args:
        ranks: what Composer's ``get_rng_state`` gives.
    """
    return torch.frombuffer(bytearray(json.dumps([_plain(states) for states in ranks]).encode()), dtype=torch.uint8)


def unpack_random_states(packed: Tensor) -> list[dict[str, Any]]:
    """The states of each rank, as Composer's ``load_rng_state`` takes them."""
    return [_states(plain) for plain in json.loads(packed.numpy().tobytes())]


def _plain(states: dict[str, Any]) -> dict[str, Any]:
    kind, key, *numpy_rest = states["numpy"]
    tensors = {name: states[name].numpy().tobytes().hex() for name in GENERATORS if name in states}
    return {"python": states["python"], "numpy": [kind, key.tolist(), *numpy_rest], **tensors}


def _states(plain: dict[str, Any]) -> dict[str, Any]:
    version, numbers, following = plain["python"]
    kind, key, *numpy_rest = plain["numpy"]
    tensors = {
        name: torch.frombuffer(bytearray.fromhex(plain[name]), dtype=torch.uint8)
        for name in GENERATORS
        if name in plain
    }
    return {
        "python": (version, tuple(numbers), following),
        "numpy": (kind, np.array(key, dtype=np.uint32), *numpy_rest),
        **tensors,
    }
