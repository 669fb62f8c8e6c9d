"""The linear reader: ridge regression on the signs of the answers, its strength chosen on the training part alone."""

from __future__ import annotations

import torch
from torch import Tensor

NOTHING = 1e-10
"""Part of the greatest spread below which an axis is rounding."""
STRENGTHS = [10.0**power for power in range(-5, 4)]
"""Ridge penalties that are tried, in parts of the mean square of a picture's features."""


def read_linearly(train: Tensor, truths: Tensor, test: Tensor) -> Tensor:
    """What a linear reader, fitted to some pictures, says of others.

    For each question the penalty is the one with the least squared error when each training picture is left out in
    turn, which needs no second fit.

    Args:
        train: features (n, D), float64.
        truths: bool (n, Q), the answers to Q questions.
        test: features (m, D).

    Returns:
        bool (m, Q).
    """
    centre, signs = train.mean(0), truths.double() * 2 - 1
    shift = signs.mean(0)
    centred, signs = train - centre, signs - shift
    axes, spread = principal_axes(centred)
    along = axes.T @ signs
    unit = spread.sum() / len(train)
    best = torch.full_like(shift, torch.inf)
    weights = torch.zeros_like(signs)
    for strength in STRENGTHS:
        damped = 1 / (spread + strength * unit)
        fitted = axes @ ((spread * damped)[:, None] * along)
        own_share = axes.square() @ (spread * damped)
        error = ((signs - fitted) / (1 - own_share)[:, None]).square().mean(0)
        tried = axes @ (damped[:, None] * along)
        weights = torch.where(error < best, tried, weights)
        best = torch.minimum(error, best)
    return (test - centre) @ (centred.T @ weights) + shift > 0


def principal_axes(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Of features (n, D): orthonormal axes (n, k) over the pictures, and how much of the features lies along each.

    Solved over features or over pictures, whichever are fewer.
    """
    rows, columns = centred.shape
    if rows <= columns:
        spread, axes = torch.linalg.eigh(centred @ centred.T)
        seen = spread > spread[-1] * NOTHING
        return axes[:, seen], spread[seen]
    spread, directions = torch.linalg.eigh(centred.T @ centred)
    seen = spread > spread[-1] * NOTHING
    return centred @ directions[:, seen] / spread[seen].sqrt(), spread[seen]
