"""Whether a gradient is finite: one look at each value, and none of them is missed."""

from __future__ import annotations

import pytest
import torch

from theworld.train.callbacks.finite_steps import are_finite

KINDS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_anywhere_is_seen(kind: torch.dtype, value: float) -> None:
    largest = torch.finfo(kind).max
    for size in (1, 7, 1000, 70_001):  # also what a vector unit or a second thread begins with and leaves over
        for place in {0, size // 2, size - 1}:
            good = [torch.full((size,), largest, dtype=kind), torch.empty(0), torch.tensor([[-largest]], dtype=kind)]
            assert are_finite(good)
            good[0][place] = value
            assert not are_finite(good)
            assert not are_finite(good[::-1])
            assert not are_finite([good[0], torch.zeros(3)])


def test_no_gradient_is_finite() -> None:
    assert are_finite([])
    assert are_finite([torch.empty(0)])
