"""The learning rate as a function of the samples seen, over the samples that the pass is to have.

Composer's schedulers count batches. Over a pass that changes its batch size, or grows, the share of its batches that
are done is not the share of its samples: from 8 samples a batch to 16 half-way, the batches done are all that the pass
would have had, and the rate would be the last one at once.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from composer.core import State, Time, Timestamp, TimeUnit
from composer.optim import ComposerScheduler

from theworld.data.batches.expectation import Expectation
from theworld.data.batches.passes import PassDataset
from theworld.train.callbacks.pass_length import scheduled_samples

log = logging.getLogger(__name__)


class CountedState:
    """Composer's state with other counts of batches.

    Args:
        state: what everything else is taken from.
        timestamp: how far the run is.
        dataloader_len: batches of a pass.
    """

    def __init__(self, state: State, timestamp: Timestamp, dataloader_len: int) -> None:
        self._state = state
        self.timestamp = timestamp
        self.dataloader_len = Time(dataloader_len, TimeUnit.BATCH)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)


class SampleSchedule(ComposerScheduler):
    """A scheduler of Composer that sees batches of the size that the pass began with, as many as the samples make.

    Where neither size nor data set change these are the batches themselves. A run whose ``max_duration`` is not in
    passes ends after so many real batches, samples or tokens, and its scheduler sees those.

    Args:
        scheduler: the scheduler.
        dataset: of the pass.
        expectation: what the pass is to have.
    """

    def __init__(self, scheduler: ComposerScheduler, dataset: PassDataset, expectation: Expectation) -> None:
        self.scheduler = scheduler
        self.dataset = dataset
        self.expectation = expectation
        self.total = 0
        """Samples of the pass when the rate was last asked for."""
        self.stages = 1
        """Stages of the pass at that time."""

    def __call__(self, state: State, ssr: float = 1.0) -> float:
        """The factor of the learning rate."""
        if state.max_duration is None or state.max_duration.unit != TimeUnit.EPOCH:
            return self.scheduler(state, ssr)
        total = scheduled_samples(self.dataset, self.expectation)
        self._say_change(total, int(state.timestamp.sample_in_epoch))
        size = self.dataset.stages[0].global_batch_size
        length = math.ceil(total / size)
        done = math.ceil(int(state.timestamp.sample_in_epoch) / size)
        passes = int(state.timestamp.epoch)
        timestamp = state.timestamp.copy(batch=passes * length + done, batch_in_epoch=done)
        return self.scheduler(CountedState(state, timestamp, length), ssr)  # pyright: ignore[reportArgumentType]

    def _say_change(self, total: int, seen: int) -> None:
        """One line where the pass is to have another number of samples than before."""
        stages = self.dataset.stages
        before = self.total or total
        just_begun = seen <= stages[-1].position + self.dataset.global_batch_size
        new_stage = len(stages) > self.stages and just_begun
        if new_stage and self.expectation.configured is None:  # at a resume the total has been the new one already
            before = stages[-2].samples
        if total != before:
            log.info(
                "the learning-rate schedule runs over %d samples of the pass, before over %d; %d are done: the rate %s",
                *(total, before, seen, "may rise again" if total > before else "falls faster"),
            )
        self.total, self.stages = total, len(stages)
