"""Whether an optimizer's state, as a checkpoint has set it, is one that a step can be taken with.

Composer and torch take over whatever a checkpoint holds; a value of another kind ends the first step with a traceback.
"""

from __future__ import annotations

from numbers import Number
from typing import Any

import torch

from theworld.errors import UserError

AS_THE_WEIGHT = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "acc_delta")
"""Values that torch's and Composer's optimizers keep for each element of a weight."""


def check_optimizer(optimizer: torch.optim.Optimizer, origin: str) -> None:
    """See that settings are of the kind that the optimizer was made with, and states of its weights' shapes.

    Args:
        optimizer: after a checkpoint was loaded into it.
        origin: the checkpoint, for the line.

    Raises:
        UserError: names what is of another kind.
    """
    # An optimizer of a user's own may keep anything under other names.
    for group in optimizer.param_groups:
        if not isinstance(group.get("name", ""), str):
            raise UserError(f"{origin}: its optimizer has a {type(group['name']).__name__} for a group's name")
        for name, usual in optimizer.defaults.items():
            if name in group and not is_alike(group[name], usual):
                raise UserError(f"{origin}: its optimizer has {name} as a {type(group[name]).__name__}")
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if name in AS_THE_WEIGHT and value is not None and shape(value) != weight.shape:
                raise UserError(f"{origin}: its optimizer has {name} of shape {shape(value)} for a {weight.shape}")
            if name == "step" and not isinstance(value, (torch.Tensor, Number)):
                raise UserError(f"{origin}: its optimizer has {name} as a {type(value).__name__}")


def is_alike(value: Any, usual: Any) -> bool:
    """Whether a setting may stand where another one stood."""
    if isinstance(usual, bool) or usual is None:
        return isinstance(value, bool) or value is None
    if isinstance(usual, (Number, torch.Tensor)):
        return isinstance(value, (Number, torch.Tensor))
    if isinstance(usual, (tuple, list)):
        alike = isinstance(value, (tuple, list)) and len(value) == len(usual)
        return alike and all(is_alike(*pair) for pair in zip(value, usual, strict=True))
    return isinstance(value, type(usual))


def shape(value: Any) -> torch.Size | None:
    """A tensor's shape; None for anything else."""
    return value.shape if isinstance(value, torch.Tensor) else None
