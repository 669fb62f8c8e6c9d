"""Metrics of evaluation, counted over answer tokens on all ranks."""

from __future__ import annotations

from typing import Any

import torch
from torchmetrics import Metric


class _PerAnswerToken(Metric):
    """A sum over answer tokens divided by their number."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("amount", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", default=torch.tensor(0, dtype=torch.long), dist_reduce_fx="sum")

    def compute(self) -> torch.Tensor:
        return (self.amount / self.tokens.clamp(min=1)).float()  # pyright: ignore


class AnswerLoss(_PerAnswerToken):
    """Mean cross entropy of the answer tokens, in nats."""

    def update(self, outputs: Any) -> None:
        self.amount += outputs.loss.detach().double() * outputs.num_loss_tokens
        self.tokens += outputs.num_loss_tokens


class AnswerAccuracy(_PerAnswerToken):
    """Share of the answer tokens that were the model's first choice."""

    def update(self, outputs: Any) -> None:
        self.amount += outputs.num_correct
        self.tokens += outputs.num_loss_tokens
