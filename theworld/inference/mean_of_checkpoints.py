"""The mean of the weights of several checkpoints (stochastic weight averaging's last step, arXiv:1803.05407)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from theworld.checkpoint.on_disk import is_whole
from theworld.errors import UserError
from theworld.inference.load_trained import read_trained


def mean_of(checkpoints: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The mean weights, by the model's own names, in the first one's precision.

    One checkpoint is in memory at a time, beside the sums in float64.

    Raises:
        UserError: one is no checkpoint, not whole, or not of the same weights on the same base models.
    """
    first, facts = read_whole(checkpoints[0])
    dtypes = {name: weight.dtype for name, weight in first.items()}
    sums = {name: weight.double() for name, weight in first.items()}
    del first
    for path in checkpoints[1:]:
        weights, of_this = read_whole(path)
        if of_this != facts:
            differ = next(key for key in facts if facts[key] != of_this[key])
            raise UserError(f"{path}: its {differ} are not those of {checkpoints[0]}; a mean would be neither's")
        other = sorted(
            name
            for name in sums.keys() | weights.keys()
            if name not in sums or name not in weights or sums[name].shape != weights[name].shape
        )
        if other:
            raise UserError(
                f"{path}: holds other weights than {checkpoints[0]}, for example {other[0]}; the same must have trained"
            )
        for name, weight in weights.items():
            sums[name] += weight
    return {name: (total / len(checkpoints)).to(dtypes[name]) for name, total in sums.items()}


def read_whole(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights of a checkpoint, and what its record says of base models and adapters.

    Raises:
        UserError: it is cut short, or no checkpoint.
    """
    if not is_whole(path):
        raise UserError(f"{path}: not a whole checkpoint")
    return read_trained(path)
