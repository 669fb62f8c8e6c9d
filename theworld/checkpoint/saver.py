"""Checkpoints that are whole or not there.

Composer's own saver writes to the final name and then moves a link: a kill in between leaves a cut file, or no link,
and its autoresume then fails or starts over; on two nodes that share ``save_folder`` it always crashes. Here a
checkpoint is written aside, forced to disk and renamed, and resuming (:mod:`~theworld.checkpoint.on_disk`) looks
at the checkpoints themselves.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from composer.core import Callback, Event, State
from composer.loggers import Logger
from composer.utils import create_interval_scheduler, dist
from composer.utils.checkpoint import save_checkpoint

from theworld.checkpoint.fence import Fence
from theworld.checkpoint.on_disk import is_whole, list_checkpoints
from theworld.files import put_in_place
from theworld.ranks import from_rank_zero

log = logging.getLogger(__name__)

SAVING = ".saving"
LATEST = "latest-rank0.pt"


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

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        self._save_if_due(state, Event.BATCH_CHECKPOINT)

    def epoch_checkpoint(self, state: State, logger: Logger) -> None:
        self._save_if_due(state, Event.EPOCH_CHECKPOINT)

    def fit_start(self, state: State, logger: Logger) -> None:
        self.last_saved_batch = int(state.timestamp.batch)
        if dist.get_global_rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self.folder / SAVING, ignore_errors=True)
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
        self.save(state)

    def save(self, state: State) -> Path:
        """Write a checkpoint now; all ranks call it.

        Raises:
            Superseded: a newer start of the run has begun; nothing is written.
        """
        self.fence.look_together()
        self.before_save()
        name = f"ep{int(state.timestamp.epoch)}-ba{int(state.timestamp.batch)}"
        # In a folder of this start's own: an older one may still be writing the checkpoint of the same batch.
        saving = self.folder / SAVING / f"{self.fence.launch}-{name}"
        saved = save_checkpoint(state, str(saving / f"{name}-rank{{rank}}.pt"), ignore_keys=self.select)
        dist.barrier()
        final = self.folder / (name if state.fsdp_sharded_state_dict_enabled else f"{name}-rank0.pt")
        written = Path(saved) if saved is not None else None
        if written is not None and state.fsdp_sharded_state_dict_enabled:
            written = written.parent
        from_rank_zero(lambda: self._put_in_place(written, final))
        self.last_saved_batch = int(state.timestamp.batch)
        log.info("saved %s", final)
        return final

    def _put_in_place(self, written: Path | None, final: Path) -> None:
        """Give a checkpoint that all ranks have written its name; rank 0 does it."""
        assert written is not None
        self.fence.look()  # writing may have taken minutes
        put_in_place(written, final)
        shutil.rmtree(self.folder / SAVING, ignore_errors=True)
        point_latest(self.folder, final)
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
