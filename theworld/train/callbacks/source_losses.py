"""The training loss of each data set that a run mixes."""

from __future__ import annotations

from typing import Any

import torch
from composer.core import Callback, Event, State
from composer.loggers import Logger
from composer.utils import create_interval_scheduler, dist

from theworld.data.batches.passes import PassDataset

SERIES = "metrics/train-{}/AnswerLoss"
"""Beside ``metrics/eval-NAME/AnswerLoss``, which is the same mean over the answer tokens of an evaluation set."""


class SourceLosses(Callback):
    """Logs the mean loss over the answer tokens of each data set since it was logged last, over all ranks.

    The forward pass of training gives the losses of its samples; sums stay on the device until they are logged. What
    was summed since the last time is not in a checkpoint: after a resume the first values are of the batches since
    then. Of a single data set, whose loss is the loss, nothing is logged.

    Args:
        dataset: what is trained on.
        interval: Composer's time string.
    """

    def __init__(self, dataset: PassDataset, interval: str) -> None:
        self.dataset = dataset
        self.due = create_interval_scheduler(
            interval,
            include_end_of_training=True,
            checkpoint_events=False,
            final_events={Event.BATCH_END, Event.EPOCH_END},
        )
        self.sums: dict[str, torch.Tensor] = {}
        """Name -> loss and tokens, float64, on the device."""

    def batch_start(self, state: State, logger: Logger) -> None:
        """The mixture may change with a pass."""
        composed: Any = state.model.module if state.is_model_ddp else state.model
        composed.model.loss_by_sample = bool(self.dataset.sources.members[0].name)

    def after_forward(self, state: State, logger: Logger) -> None:
        losses, tokens = state.outputs.sample_losses, state.outputs.sample_tokens  # pyright: ignore
        if losses is None:
            return
        places: dict[str, list[int]] = {}
        for place, name in enumerate(state.batch["sample_ids"]):
            places.setdefault(name.split("/", 1)[0], []).append(place)
        of_samples = torch.stack([losses, tokens], dim=1).double()
        for name, own in places.items():
            found = of_samples[own[0]] if len(own) == 1 else of_samples[own].sum(dim=0)
            self.sums[name] = self.sums[name] + found if name in self.sums else found

    def batch_end(self, state: State, logger: Logger) -> None:
        self.log_if_due(state, logger, Event.BATCH_END)

    def epoch_end(self, state: State, logger: Logger) -> None:
        self.log_if_due(state, logger, Event.EPOCH_END)

    def log_if_due(self, state: State, logger: Logger, event: Event) -> None:
        """At the interval, on all ranks, log and begin anew."""
        if not self.dataset.sources.members[0].name or not self.due(state, event):
            return
        own = {name: found.tolist() for name, found in self.sums.items()}
        self.sums = {}
        total: dict[str, list[float]] = {}
        for sums in dist.all_gather_object(own):
            for name, (loss, tokens) in sums.items():
                before = total.get(name, [0.0, 0.0])
                total[name] = [before[0] + loss, before[1] + tokens]
        logger.log_metrics({SERIES.format(name): loss / tokens for name, (loss, tokens) in total.items() if tokens})
