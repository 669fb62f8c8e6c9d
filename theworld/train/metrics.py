"""Metrics: of evaluation, counted over answer tokens on all ranks, and of padding."""

from __future__ import annotations

from typing import Any

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from torchmetrics import Metric

from theworld.data.batches.microbatches import padding_in


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


class PaddingShare(Callback):
    """Logs ``data/padding``, the share of a batch's tokens that are padding, over the microbatches as they are run.

    Of rank 0's microbatches, whose samples are as good as any other rank's.
    """

    def __init__(self) -> None:
        self.padding = 0
        self.tokens = 0

    def batch_start(self, state: State, logger: Logger) -> None:
        self.padding = self.tokens = 0

    def before_forward(self, state: State, logger: Logger) -> None:
        padding, tokens = padding_in(state.batch)
        self.padding += padding
        self.tokens += tokens

    def batch_end(self, state: State, logger: Logger) -> None:
        logger.log_metrics({"data/padding": self.padding / max(self.tokens, 1)})
