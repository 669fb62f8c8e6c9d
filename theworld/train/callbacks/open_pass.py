"""A pass stays open while data may come: new samples at each save, and a wait where expected ones are not there yet."""

from __future__ import annotations

import logging
import time

from composer.core import Callback, State
from composer.loggers import Logger

from theworld.checkpoint.saver import WholeCheckpointSaver
from theworld.data.batches.expectation import Expectation
from theworld.data.batches.passes import PassDataset
from theworld.errors import NotNow, Stopped
from theworld.pulse import always, pulse
from theworld.ranks import from_rank_zero, raise_together
from theworld.train.callbacks.preemption import Preemption

log = logging.getLogger(__name__)

LOOK_EVERY = 5.0
SIGN_OF_LIFE = 60.0


class OpenPass(Callback):
    """Between batches, looks for what the converter has added.

    After a save, new samples are mixed with those that are left. Where less than a batch is left and the pass is to
    have more, the run saves and waits; the batch that is not full waits with it.

    Args:
        dataset: of the pass.
        expectation: what the pass is to have.
        wait: seconds to wait for it.
        saver: knows what is saved.
        preemption: whether the run is to stop.
    """

    def __init__(
        self,
        dataset: PassDataset,
        expectation: Expectation,
        wait: float,
        saver: WholeCheckpointSaver,
        preemption: Preemption,
    ) -> None:
        self.dataset = dataset
        self.expectation = expectation
        self.wait = wait
        self.saver = saver
        self.preemption = preemption
        self.looked_after = -1
        """Batches done when growth was looked for."""
        self.given_up_at = -1
        """Samples known when that was last said."""

    def fit_start(self, state: State, logger: Logger) -> None:
        # The newest data set has just been opened.
        self.looked_after = int(state.timestamp.batch)

    def before_dataloader(self, state: State, logger: Logger) -> None:
        batch = int(state.timestamp.batch)
        if self.dataset.left >= self.dataset.global_batch_size:
            if self.looked_after != batch == self.saver.last_saved_batch:
                self.looked_after = batch
                self.dataset.growth_wanted = True
        elif not self._enough():
            self._wait(state)

    def _enough(self) -> bool:
        """Take up what is new; whether the loader can go on: with a full batch, or with the end of the pass."""
        dataset = self.dataset
        dataset.take_up_growth()
        return dataset.left >= dataset.global_batch_size or self.missing == 0

    @property
    def missing(self) -> int:
        """Samples that the pass is to have and that are not there."""
        expected = self.expectation.copies(self.dataset.sources.snapshots, self.dataset.mix)
        return 0 if expected is None else max(0, expected - self.dataset.known)

    def _wait(self, state: State) -> None:
        """Save, and wait for more.

        Raises:
            NotNow: nothing has come.
            Stopped: the run is to stop.
        """
        known, missing = self.dataset.known, self.missing
        if from_rank_zero(self.expectation.is_given_up):
            if self.given_up_at != known:
                self.given_up_at = known
                log.warning(
                    "%d of %d expected samples are missing and nothing has arrived for %.0f h: the pass ends without "
                    "them",
                    missing,
                    known + missing,
                    self.expectation.give_up / 3600,
                )
            return
        if self.saver.last_saved_batch != int(state.timestamp.batch):
            self.saver.save(state)
        log.info(
            "the %d samples that are there are used up: waiting up to %.0f s for %d more", known, self.wait, missing
        )
        with pulse.at("train_loader.wait", planned=always):
            if self._come_in_time(state):
                return
        raise_together(
            NotNow(
                f"{self.missing} of {self.missing + self.dataset.known} expected samples are not in "
                f"{self.dataset.sources.origin} yet (train_loader.expected_samples); saved after batch "
                f"{int(state.timestamp.batch)}, the same command goes on from there"
            )
        )

    def _come_in_time(self, state: State) -> bool:
        """Whether enough for a batch has come while there was time to wait."""
        begun = said = time.monotonic()
        while from_rank_zero(lambda: time.monotonic() - begun) < self.wait:
            if self.preemption.agreed(state):
                raise Stopped
            time.sleep(min(LOOK_EVERY, self.wait))
            if self._enough():
                return True
            if time.monotonic() - said >= SIGN_OF_LIFE:
                said = time.monotonic()
                log.info("waiting for %d more samples since %.0f s", self.missing, said - begun)
        return False
