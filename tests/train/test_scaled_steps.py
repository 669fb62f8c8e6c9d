"""With a gradient scaler, as amp_fp16 has: torch's own, on the CPU, in the order in which Composer calls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from composer.devices import DeviceCPU
from torch.amp.grad_scaler import GradScaler

from theworld.errors import RunFailed
from theworld.train.callbacks.finite_steps import FiniteSteps

NO_LOGGER: Any = SimpleNamespace(log_metrics=lambda metrics: None)


class Scaled:
    """A model of one weight that trains with a scaler.

    Args:
        scale: the scaler's first.
    """

    def __init__(self, scale: float) -> None:
        self.model = torch.nn.Linear(1, 1, bias=False)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        self.scaler = GradScaler("cpu", init_scale=scale)
        self.steps = FiniteSteps(most_in_a_row=3)
        self.batch = 0

    def step(self, factor: float, of_gradient: float = 1.0) -> None:
        """One batch of two microbatches, whose loss is the weight times a factor.

        Args:
            factor: of the loss; NaN: the loss is none.
            of_gradient: what the backward pass multiplies, as a faulty kernel would; the loss does not show it.
        """
        self.batch += 1
        state: Any = SimpleNamespace(
            scaler=self.scaler,
            model=self.model,
            device=DeviceCPU(),
            batch={"sample_ids": ["a", "b"]},
            timestamp=SimpleNamespace(batch=self.batch),
        )
        self.steps.batch_start(state, NO_LOGGER)
        self.optimizer.zero_grad()
        for part in (1.0, factor):
            loss = self.model(torch.ones(1, 1)).sum() * part
            loss.register_hook(lambda gradient: gradient * of_gradient)
            state.loss = loss
            self.steps.after_loss(state, NO_LOGGER)
            self.scaler.scale(loss).backward()
        self.steps.after_train_batch(state, NO_LOGGER)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.steps.batch_end(state, NO_LOGGER)


def test_a_scaler_that_looks_for_its_scale_does_not_end_the_run() -> None:
    run = Scaled(scale=2.0**127)  # the gradient times that is infinite, the gradient is not
    for _ in range(5):
        run.step(8.0)
    assert run.steps.lost_steps == 3
    assert run.steps.in_a_row == 0
    assert not run.steps.step_was_lost, "it has found its scale"


def test_a_loss_that_is_no_number_counts_at_any_scale() -> None:
    run = Scaled(scale=65536.0)
    run.step(float("nan"))
    run.step(1.0)
    run.step(float("nan"))
    run.step(float("nan"))
    assert run.steps.in_a_row == 2
    with pytest.raises(RunFailed, match="not finite 3 times in a row, the last time in batch 5"):
        run.step(float("nan"))


def test_a_gradient_that_no_scale_makes_finite_ends_the_run_too() -> None:
    run = Scaled(scale=4.0)
    for _ in range(4):
        run.step(1.0, of_gradient=float("inf"))
    with pytest.raises(RunFailed, match="not finite 3 times in a row, the last time in batch 5"):
        run.step(1.0, of_gradient=float("inf"))
    assert run.steps.lost_steps == 5, "two while the scale was above 1, then three"
