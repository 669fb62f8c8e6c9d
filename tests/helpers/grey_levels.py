"""How far pixels may lie from those of Gemma 3's own processor, which resizes with Pillow."""

from __future__ import annotations

from torch import Tensor

TWO_LEVELS = 1e-5
"""Share of the values that may be two grey levels off."""


def assert_same_picture(found: Tensor, expected: Tensor, level: float = 1.0) -> None:
    """Equal within one grey level, two for at most one value in 100,000.

    Args:
        found, expected: pixels, bytes or normalised.
        level: what one grey level is in them.
    """
    assert found.shape == expected.shape
    off = (found.double() - expected.double()).abs().div(level)
    assert off.max() < 2.01, float(off.max())
    assert (off > 1.01).double().mean() <= TWO_LEVELS
    assert (off > 0.01).double().mean() < 0.05, "another filter, not another rounding"
