"""An optimizer's state of another kind is one line, not a traceback in the first step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from composer.optim import DecoupledAdamW

from theworld.checkpoint.optimizer_state import check_optimizer
from theworld.errors import UserError


def after_a_step(kind: type[torch.optim.Optimizer], **settings: Any) -> torch.optim.Optimizer:
    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = kind([weight], **settings)
    weight.sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(DecoupledAdamW, {"lr": 0.1}), (torch.optim.AdamW, {"fused": True}), (torch.optim.SGD, {"momentum": 0.9})],
)
def test_what_an_optimizer_has_written_itself_is_taken(kind: Any, settings: dict[str, Any]) -> None:
    optimizer, other = after_a_step(kind, **settings), after_a_step(kind, **settings)
    other.load_state_dict(optimizer.state_dict())
    check_optimizer(other, "run/ep0")


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("state", "exp_avg_sq", {1: 2}),
        ("state", "exp_avg", torch.ones(2, 3)),
        ("state", "step", "one"),
        ("group", "betas", (0.9, "0.99")),
        ("group", "betas", 0.9),
        ("group", "lr", None),
        ("group", "weight_decay", [0.1]),
    ],
)
def test_another_kind_is_named(where: str, name: str, value: Any) -> None:
    optimizer = after_a_step(DecoupledAdamW, lr=0.1)
    (optimizer.param_groups[0] if where == "group" else next(iter(optimizer.state.values())))[name] = value
    with pytest.raises(UserError, match=rf"run/ep0: its optimizer has {name} (as|of)") as refused:
        check_optimizer(optimizer, "run/ep0")
    assert "\n" not in str(refused.value)
