"""Confidence intervals and paired tests of shares and means, without a statistics package."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

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
    """95 % percentile interval of a mean, by drawing the values anew with replacement; the same for the same seed."""
    if not values:
        return math.nan, math.nan
    chance = random.Random(seed)
    means = sorted(sum(chance.choices(values, k=len(values))) / len(values) for _ in range(draws))
    return means[int(0.025 * draws)], means[int(0.975 * draws) - 1]


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
    chance = random.Random(seed)
    seen = abs(sum(differences)) - 1e-12
    sizes = [abs(difference) for difference in differences]
    extreme = sum(abs(sum(size if chance.random() < 0.5 else -size for size in sizes)) >= seen for _ in range(draws))
    return (extreme + 1) / (draws + 1)
