"""A start of a run with all that looks after it: the watchdog, what the lease says of it, how it has ended."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from composer.utils import dist

from theworld.checkpoint.fence import Fence
from theworld.config.schema import Config
from theworld.errors import (
    EXIT_BROKEN_PROMISE,
    EXIT_DONE,
    EXIT_REQUEUE,
    EXIT_RUN_AGAIN,
    DamagedShard,
    NotNow,
    Stopped,
    UserError,
    describe,
)
from theworld.lease import Superseded, newer_start
from theworld.monitor.ends import note_end
from theworld.monitor.prometheus import write_metrics
from theworld.pulse import pulse
from theworld.ranks import from_rank_zero
from theworld.signals import StopRequest
from theworld.train.damaged_shards import error_to_leave_with
from theworld.train.failures_of_ranks import clear_reasons, note_reason
from theworld.train.watchdog import Watchdog, tell, watching

log = logging.getLogger(__name__)


class Attendance:
    """What is written down of a start, and when.

    Args:
        config: of the run.
        save_folder: of the run.
        stop: why the run is to stop, if it is.
        fence: of the save folder; knows this start's number.
    """

    def __init__(self, config: Config, save_folder: Path, stop: StopRequest, fence: Fence) -> None:
        self.config, self.save_folder, self.stop, self.fence = config, save_folder, stop, fence
        self.rank = dist.get_global_rank()
        self.failing = False

    def of(self, work: Callable[[], int]) -> int:
        """Do the start's work; all ranks call it. Returns its exit code and raises its errors.

        Raises:
            Superseded: in place of any error, where a newer start works in the folder: it has cleared away what this
                one had half written, and its is the word on how the run ends.
        """
        from_rank_zero(lambda: clear_reasons(self.save_folder))
        try:
            code = self._watched(lambda: self._judged(work))
        except Superseded:
            raise  # a newer start writes here
        except Exception as error:
            reason = str(error) if isinstance(error, UserError) else describe(error)
            newer = newer_start(self.save_folder, self.fence.launch)
            if newer is not None:
                log.warning("%s; a newer start of the run is at work, whose doing this may be", reason)
                raise newer from error
            if not isinstance(error, NotNow):
                note_reason(self.save_folder, self.rank, reason)
            self.ended(error.exit_code if isinstance(error, UserError) else EXIT_BROKEN_PROMISE, reason)
            raise
        self.ended(code, "" if code == EXIT_DONE else str(self.stop.reason or "another rank's wish"))
        return code

    def _judged(self, work: Callable[[], int]) -> int:
        """The start's work. A stop before the first batch, in a wait, leaves nothing to save; what is waited for in
        vain at start after start is an error."""
        try:
            return work()
        except Stopped as stopped:
            log.info("%s, before the first batch: %s", stopped, self.stop.reason or "another rank's wish")
            return EXIT_REQUEUE
        except DamagedShard as error:
            raise error_to_leave_with(self.save_folder, self.fence, error) from error

    def _watched(self, work: Callable[[], int]) -> int:
        ranks = dist.get_world_size()
        dog = Watchdog(
            self.config.watchdog, self.stop, self.fence, self.save_folder, self.rank, ranks, self.ended_by_watchdog
        )
        with watching(dog):
            if self.fence.lease is not None:
                self.fence.lease.each_beat = lambda: self.beat(dog)
            return work()

    def beat(self, dog: Watchdog) -> dict[str, Any]:
        """With each sign of life of rank 0: ``metrics.prom``, and what the lease says."""
        said = tell(dog)
        try:
            write_metrics(self.save_folder, {**said, **said["figures"]}, self.config.run_name)
            self.failing = False
        except OSError as error:
            if not self.failing:
                log.warning("%s: metrics.prom cannot be written (%s), trying again", self.save_folder, error)
            self.failing = True
        return said

    def ended(self, exit_code: int, reason: str) -> None:
        """Write down how this start ends."""
        pulse.begin("the end")
        if self.rank == 0:
            note_end(self.save_folder, self.fence.launch, exit_code, reason)

    def ended_by_watchdog(self, reason: str) -> None:
        """The same where the main thread hangs; called in another."""
        note_reason(self.save_folder, self.rank, reason, stall=True)
        if self.fence.lease is not None:
            note_end(self.save_folder, self.fence.launch, EXIT_RUN_AGAIN, reason)
            self.fence.lease.release()
