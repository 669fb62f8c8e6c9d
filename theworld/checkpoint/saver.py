"""Checkpoints that are whole or not there.

Composer's own saver writes to the final name and then moves a link: a kill in between leaves a cut file, or no link,
and its autoresume then fails or starts over; on two nodes that share ``save_folder`` it always crashes. Here a
checkpoint is written aside, forced to disk and renamed, and resuming (:mod:`~theworld.checkpoint.on_disk`) looks
at the checkpoints themselves.

Where one cannot be written, a full disk for instance, nothing of it stays and training goes on, for the next may fit;
if that fails as well the run ends, so that no more than two intervals of progress are at stake.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from composer.core import Callback, Event, State
from composer.loggers import Logger
from composer.utils import create_interval_scheduler, dist
from composer.utils.checkpoint import save_checkpoint
from torch.distributed.checkpoint.api import CheckpointException

from theworld.checkpoint.fence import Fence
from theworld.checkpoint.on_disk import SAVING, clear_half_saves, is_whole, list_checkpoints
from theworld.checkpoint.state_size import ROOM_FOR_NAMES, bytes_to_write
from theworld.disk_space import CannotWrite, NeverFits, fault_of_disk, in_megabytes
from theworld.errors import RunFailed
from theworld.files import put_in_place
from theworld.pulse import always, pulse
from theworld.ranks import from_rank_zero, raise_together

log = logging.getLogger(__name__)

LATEST = "latest-rank0.pt"
MOST_FAILED = 2
"""Saves in a row that cannot be written, after which the run ends."""


class WholeCheckpointSaver(Callback):
    """Saves at ``interval`` and at the end of training.

    Args:
        folder: ``save_folder``.
        interval: Composer's time string.
        keep: how many checkpoints stay, those of earlier starts of the run included; -1 keeps all.
        fence: keeps this start from writing when a newer one has begun.
        before_save: called on all ranks right before a save, for what must be on disk with it.
        after_save: called on rank 0 with a checkpoint that has just become whole, before older ones go.
        select: called on all ranks with Composer's state before it is written; takes out what need not be saved.
    """

    def __init__(
        self,
        folder: Path,
        interval: int | str,
        keep: int,
        fence: Fence,
        before_save: Callable[[], None],
        select: Callable[[dict[str, Any]], None] | None = None,
        after_save: Callable[[Path], None] | None = None,
    ) -> None:
        self.folder = folder
        self.due = create_interval_scheduler(interval, include_end_of_training=True)
        self.keep = keep
        self.fence = fence
        self.before_save = before_save
        self.select = select
        self.after_save = after_save
        self.last_saved_batch = -1
        self.failed = 0
        """Saves in a row that could not be written."""
        self.needed: int | None = None
        """Bytes of a checkpoint, since one was put together."""
        self.save_seconds: float | None = None
        """What the last save took."""
        self.saved_at: float | None = None
        """When it was done, in seconds since 1970; None before the first of this start."""

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        self._save_if_due(state, Event.BATCH_CHECKPOINT)

    def epoch_checkpoint(self, state: State, logger: Logger) -> None:
        self._save_if_due(state, Event.EPOCH_CHECKPOINT)

    def fit_start(self, state: State, logger: Logger) -> None:
        self.last_saved_batch = int(state.timestamp.batch)
        if dist.get_global_rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
        dist.barrier()

    def _save_if_due(self, state: State, event: Event) -> None:
        # The end of an epoch is a place of its own: the data set's state has moved to the next pass. Composer's
        # schedule takes it for done if the last batch has been saved, and a finished run would then look unfinished.
        elapsed = state.get_elapsed_duration()
        finished = event == Event.EPOCH_CHECKPOINT and elapsed is not None and elapsed >= 1.0
        if not (self.due(state, event) or finished):
            return
        if event == Event.BATCH_CHECKPOINT and self.last_saved_batch == int(state.timestamp.batch):
            return
        self.save(state, last=elapsed is not None and elapsed >= 1.0)

    def save(self, state: State, last: bool = False) -> Path | None:
        """Write a checkpoint now; all ranks call it.

        Args:
            state: Composer's.
            last: nothing is trained after it, so that there will be no next try.

        Returns:
            The checkpoint; None if it cannot be written now and training may go on.

        Raises:
            Superseded: a newer start of the run has begun; nothing is written.
            RunFailed: on all ranks: it cannot be written, and neither could the one before, or there is no other try.
        """
        with pulse.at("save", planned=always):
            begun = time.monotonic()
            final = self._save(state, last)
            if final is not None:
                self.save_seconds = time.monotonic() - begun
                self.saved_at = time.time()
        return final

    def _save(self, state: State, last: bool) -> Path | None:
        name = f"ep{int(state.timestamp.epoch)}-ba{int(state.timestamp.batch)}"
        final = self.folder / (name if state.fsdp_sharded_state_dict_enabled else f"{name}-rank0.pt")
        try:
            self.fence.look_together()
            self.before_save()
            # In a folder of this start's own: an older one may still be writing the checkpoint of the same batch.
            saving = self.folder / SAVING / f"{self.fence.launch}-{name}"
            from_rank_zero(lambda: self._make(saving))
            written = self._write_aside(state, saving / f"{name}-rank{{rank}}.pt")
            from_rank_zero(lambda: self._put_in_place(written, final))
        except CannotWrite as error:
            from_rank_zero(lambda: clear_half_saves(self.folder))
            self._give_up(int(state.timestamp.batch), error, last)
            return None
        self.last_saved_batch, self.failed = int(state.timestamp.batch), 0
        log.info("saved %s", final)
        return final

    def _make(self, saving: Path) -> None:
        """The folder that all ranks write to."""
        try:
            saving.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _write_aside(self, state: State, path: Path) -> Path | None:
        """Write the checkpoint's parts; what this rank has written, a folder if it is sharded.

        Raises:
            CannotWrite: on all ranks, if one could not.
        """
        fault, saved = None, None
        try:
            saved = save_checkpoint(state, str(path), ignore_keys=self._select)
        except CannotWrite:
            raise  # by all ranks, before any has written
        except (Exception, CheckpointException) as error:
            refused = fault_of_disk(error)
            if refused is None:
                raise
            if dist.get_global_rank() in getattr(error, "failures", [dist.get_global_rank()]):
                fault = self._cannot_write(refused)
            dist.barrier()  # where Composer lets the other ranks wait for this one
        raise_together(fault)
        if saved is not None and state.fsdp_sharded_state_dict_enabled:
            return Path(saved).parent
        return Path(saved) if saved is not None else None

    def _select(self, checkpoint: dict[str, Any]) -> None:
        """What Composer calls with a state right before it writes it: see that there is room.

        Raises:
            CannotWrite: on all ranks, there is not.
        """
        if self.select is not None:
            self.select(checkpoint)
        needed = sum(dist.all_gather_object(bytes_to_write(checkpoint, dist.get_global_rank() == 0)))
        self.needed = needed + ROOM_FOR_NAMES
        from_rank_zero(self._check_room)

    def _check_room(self) -> None:
        assert self.needed is not None
        disk = shutil.disk_usage(self.folder)
        if self.needed > disk.total > 0:
            raise NeverFits(f"{self.folder}: a checkpoint takes {self._told(disk.free)} of {in_megabytes(disk.total)}")
        if self.needed > disk.free and disk.total > 0:
            raise CannotWrite(f"{self.folder}: a checkpoint takes {self._told(disk.free)}")

    def _told(self, free: int) -> str:
        needed = in_megabytes(self.needed) if self.needed is not None else "some space"
        return f"{needed}, and {in_megabytes(free)} are free"

    def _cannot_write(self, error: OSError) -> CannotWrite:
        told = self._told(shutil.disk_usage(self.folder).free)
        return CannotWrite(f"{self.folder}: {error.strerror}: a checkpoint takes {told}")

    def _give_up(self, batch: int, fault: CannotWrite, last: bool) -> None:
        """Say that a checkpoint could not be written, and end the run if too much is at stake."""
        self.failed += 1
        newest = f"that of batch {self.last_saved_batch}" if self.last_saved_batch else "none"
        told = f"the checkpoint of batch {batch} is not written: {fault}; the newest is {newest}"
        if not last and self.failed < MOST_FAILED and not isinstance(fault, NeverFits):
            log.warning("%s; training goes on, and ends if the next save cannot be written either", told)
            return
        failed = RunFailed(
            f"{told}, from which the run goes on when it is started again; free some space in {self.folder}, or keep "
            "fewer checkpoints (save_num_checkpoints_to_keep)"
        )
        failed.on_all_ranks = True
        raise failed from fault

    def _put_in_place(self, written: Path | None, final: Path) -> None:
        """Give a checkpoint that all ranks have written its name; rank 0 does it."""
        assert written is not None
        self.fence.look()  # writing may have taken minutes
        try:
            put_in_place(written, final)
        except OSError as error:
            raise self._cannot_write(error) from error
        clear_half_saves(self.folder)
        try:
            point_latest(self.folder, final)
        except OSError as error:
            log.warning("%s: the link to the newest checkpoint is not made (%s)", self.folder, error.strerror)
        if self.after_save is not None:
            self.after_save(final)
            self.fence.look()
        self._drop_old(final)

    def _drop_old(self, newest: Path) -> None:
        """Keep so many. Those that were passed over as damaged when the run was resumed do not count: they cannot be
        read, or are of batches that this run has yet to do."""
        if self.keep < 0:
            return
        checkpoints = list_checkpoints(self.folder)
        batch = next(checkpoint.batch for checkpoint in checkpoints if checkpoint.path == newest)
        try:
            useful = [item for item in checkpoints if item.batch <= batch and is_whole(item.path, contents=False)]
        except OSError as error:
            log.warning("%s: older checkpoints cannot be read now (%s), none is removed", self.folder, error)
            return
        for checkpoint in checkpoints:
            if checkpoint in useful[: self.keep] or checkpoint.path == newest:
                continue
            log.info("removing %s, %d are kept", checkpoint.path, self.keep)
            if checkpoint.path.is_dir():
                shutil.rmtree(checkpoint.path)
            else:
                checkpoint.path.unlink(missing_ok=True)


def point_latest(folder: Path, checkpoint: Path) -> None:
    """``latest-rank0.pt`` for people and other tools; resuming does not depend on it."""
    aside = folder / f"{LATEST}.new"
    aside.unlink(missing_ok=True)
    aside.symlink_to(checkpoint.name)
    os.replace(aside, folder / LATEST)
