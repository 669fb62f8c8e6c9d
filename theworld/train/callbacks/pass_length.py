"""How long a pass is expected to be, for the learning-rate schedule and the progress bar."""

from __future__ import annotations

import logging
import math

from composer.core import Callback, State, Time, TimeUnit
from composer.loggers import Logger

from theworld.data.batches.expectation import Expectation, promised_samples
from theworld.data.batches.passes import PassDataset

log = logging.getLogger(__name__)

UNKNOWN_LENGTH = 2**31


def scheduled_samples(dataset: PassDataset, expectation: Expectation) -> int:
    """Samples, or copies of them, that the pass is to have as far as is known now: those that are expected, or all that
    are there."""
    return max(expectation.copies(dataset.sources.snapshots, dataset.mix) or 0, dataset.known)


class PassLength(Callback):
    """Tells Composer the expected number of batches without letting it cut the pass there.

    Composer takes ``state.dataloader_len`` both as the length that schedules convert epochs with and as the number of
    batches after which it stops reading. The loader itself has no length, since a pass may grow; so the length is
    unknown while Composer sets up the iteration, and the expected one at all other times.
    """

    def __init__(self, dataset: PassDataset, expectation: Expectation) -> None:
        self.dataset = dataset
        self.expectation = expectation

    @property
    def samples(self) -> int:
        """Expected samples of a pass."""
        return scheduled_samples(self.dataset, self.expectation)

    @property
    def batches(self) -> int:
        """Expected batches of a pass."""
        return math.ceil(self.samples / self.dataset.global_batch_size)

    def fit_start(self, state: State, logger: Logger) -> None:
        state.dataloader_len = -1

    def epoch_start(self, state: State, logger: Logger) -> None:
        state.dataloader_len = -1

    def before_dataloader(self, state: State, logger: Logger) -> None:
        if state.dataloader_len is None:
            state.dataloader_len = Time(self.batches, TimeUnit.BATCH)

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        # Where training stops (a signal, or max_duration in batches) just when as many batches are done as were
        # expected, Composer would call the pass over without asking the loader whether more samples have come.
        if state.max_duration is not None and state.timestamp >= state.max_duration:
            state.dataloader_len = -1

    def batch_end(self, state: State, logger: Logger) -> None:
        # A run that ends in the middle of a pass must not look to Composer as if it had ended the pass, which it would
        # when the batches done happen to be as many as were expected.
        if state.max_duration is not None and state.timestamp >= state.max_duration:
            state.dataloader_len = Time(UNKNOWN_LENGTH, TimeUnit.BATCH)


def announce(dataset: PassDataset, expectation: Expectation) -> None:
    """Log what the pass has and what the schedule runs over."""
    snapshot = dataset.snapshot
    log.info(
        "%s: %d samples in %d generations, fingerprint %s",
        dataset.sources.origin,
        snapshot.samples,
        len(snapshot.generations),
        snapshot.fingerprint,
    )
    for line in dataset.mix.lines():
        log.info("%s", line)
    scheduled = scheduled_samples(dataset, expectation)
    log.info("the learning-rate schedule runs over %d samples a pass", scheduled)
    to_be = promised_samples(snapshot)
    if expectation.samples(snapshot) is None and to_be and to_be > scheduled:
        log.warning(
            "the JSON has %d samples for it but the schedule runs over the %d that are there: set "
            "train_loader.expected_samples to what the pass will have, or the rate falls too early and rises again",
            to_be,
            scheduled,
        )
