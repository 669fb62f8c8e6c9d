"""Confidence intervals and paired tests of shares and means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054


def wilson(right: int, of: int) -> tuple[float, float]:
    """95 % interval of a share, in percent (Wilson 1927).

    Args:
        right: successes.
        of: trials; none gives the whole range.
    """
    if of == 0:
        return 0.0, 100.0
    share, spread = right / of, Z95**2 / of
    middle = share + spread / 2
    half = Z95 * math.sqrt(share * (1 - share) / of + spread / (4 * of))
    return max(0.0, 100 * (middle - half) / (1 + spread)), min(100.0, 100 * (middle + half) / (1 + spread))


def bootstrap_mean(values: Sequence[float], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of a mean, by resampling the values with replacement; the same for the same seed."""
    if not values:
        return math.nan, math.nan
    drawn = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(np.asarray(values)[drawn].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def mcnemar(only_first: int, only_second: int) -> float:
    """p of as uneven a split of the questions that only one of two models got right, if both were equally good.

    Exact, two-sided: a fair coin thrown for each such question (McNemar 1947).
    """
    total = only_first + only_second
    if total == 0:
        return 1.0
    tail = sum(math.comb(total, count) for count in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**total)


def sign_flips(differences: Sequence[float], draws: int = 10000, seed: int = 0) -> float:
    """p of a mean difference as far from zero, if each pair could as well be the other way round.

    Two-sided randomization test; the observed sign counts as one of the draws, so p is never 0.
    """
    if not differences:
        return 1.0
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (draws, len(differences)))
    sums = np.abs(signs @ np.abs(differences))
    # The slack lets sums that are equal but for rounding count as equal.
    extreme = int((sums >= abs(sum(differences)) - 1e-9).sum())
    return (extreme + 1) / (draws + 1)
