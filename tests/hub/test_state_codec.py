"""Checkpoint state without pickles."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from theworld.hub.state_codec import NotPlain, decode, encode, same


def there_and_back(value: object) -> object:
    tensors: dict[str, torch.Tensor] = {}
    return decode(json.loads(json.dumps(encode(value, tensors))), tensors)


def test_a_real_checkpoint_comes_back_to_the_bit(finished_run: Path) -> None:
    whole = torch.load(finished_run / "ep0-ba4-rank0.pt", weights_only=False)
    assert same(there_and_back(whole), whole)


@pytest.mark.parametrize(
    "value",
    [
        {1: "a", (2, "b"): [None, True, 1.5e-300]},
        {"~": "tensor", "v": "t000000"},
        np.array([[1, 2], [3, 4]], np.uint32),
        np.array([], np.float64),
        timedelta(days=-1, microseconds=5),
        b"\x00\xff",
        torch.tensor(3.0, dtype=torch.bfloat16),
        float("inf"),
        2**70,
        ("a", ("b",), []),
    ],
)
def test_odd_values_come_back(value: object) -> None:
    assert same(there_and_back(value), value)


@pytest.mark.parametrize("value", [object(), print, np.array([object()]), {"a": [Path("x")]}])
def test_what_needs_a_pickle_is_refused_when_written(value: object) -> None:
    with pytest.raises(NotPlain, match="without a pickle"):
        there_and_back(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"~": "ndarray", "dtype": "O", "shape": [1], "v": "AAAAAAAAAAA="}',
        '{"~": "os.system", "v": "true"}',
        '{"~": "ndarray", "dtype": "<f4", "shape": [9], "v": "AAAA"}',
    ],
)
def test_nothing_else_is_made_when_read(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        decode(json.loads(text), {})
