"""Checkpoints that are whole or not there, and the newest of them found again.

Composer's own saver writes to the final name and then moves a link: a kill in between leaves a cut file, or no link,
and its autoresume then fails or starts over; on two nodes that share ``save_folder`` it always crashes. Here a
checkpoint is written aside, forced to disk and renamed, and resuming looks at the checkpoints themselves.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from composer.core import Callback, Event, State
from composer.loggers import Logger
from composer.utils import create_interval_scheduler, dist
from composer.utils.checkpoint import save_checkpoint

log = logging.getLogger(__name__)

NAME = re.compile(r"ep(\d+)-ba(\d+)(-rank0\.pt)?")
SAVING = ".saving"
LATEST = "latest-rank0.pt"


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint: a file, or with sharded FSDP a folder."""

    path: Path
    epoch: int
    batch: int


class WholeCheckpointSaver(Callback):
    """Saves at ``interval`` and at the end of training.

    Args:
        folder: ``save_folder``.
        interval: Composer's time string.
        keep: how many checkpoints stay, those of earlier starts of the run included; -1 keeps all.
        before_save: called on all ranks right before a save, for what must be on disk with it.
    """

    def __init__(self, folder: Path, interval: int | str, keep: int, before_save: Callable[[], None]) -> None:
        self.folder = folder
        self.due = create_interval_scheduler(interval, include_end_of_training=True)
        self.keep = keep
        self.before_save = before_save
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
        if not self.due(state, event):
            return
        # The end of an epoch is a place of its own: the data set's state has moved to the next pass.
        if event == Event.BATCH_CHECKPOINT and self.last_saved_batch == int(state.timestamp.batch):
            return
        self.save(state)

    def save(self, state: State) -> Path:
        """Write a checkpoint now; all ranks call it."""
        self.before_save()
        name = f"ep{int(state.timestamp.epoch)}-ba{int(state.timestamp.batch)}"
        saving = self.folder / SAVING / name
        saved = save_checkpoint(state, str(saving / f"{name}-rank{{rank}}.pt"))
        dist.barrier()
        final = self.folder / (name if state.fsdp_sharded_state_dict_enabled else f"{name}-rank0.pt")
        if dist.get_global_rank() == 0:
            assert saved is not None
            written = Path(saved).parent if state.fsdp_sharded_state_dict_enabled else Path(saved)
            force_to_disk(written)
            if final.is_dir():
                shutil.rmtree(final)
            os.replace(written, final)
            force_to_disk(self.folder)
            shutil.rmtree(self.folder / SAVING, ignore_errors=True)
            point_latest(self.folder, final)
            self._drop_old(final)
        dist.barrier()
        self.last_saved_batch = int(state.timestamp.batch)
        log.info("saved %s", final)
        return final

    def _drop_old(self, newest: Path) -> None:
        if self.keep < 0:
            return
        kept = [checkpoint for checkpoint in list_checkpoints(self.folder) if checkpoint.path != newest]
        for checkpoint in kept[max(self.keep - 1, 0) :]:
            log.info("removing %s, %d are kept", checkpoint.path, self.keep)
            if checkpoint.path.is_dir():
                shutil.rmtree(checkpoint.path)
            else:
                checkpoint.path.unlink(missing_ok=True)


def force_to_disk(path: Path) -> None:
    """fsync a file, or a folder with the files in it."""
    for member in [path, *(path.rglob("*") if path.is_dir() else [])]:
        descriptor = os.open(member, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def point_latest(folder: Path, checkpoint: Path) -> None:
    """``latest-rank0.pt`` for people and other tools; resuming does not depend on it."""
    aside = folder / f"{LATEST}.new"
    aside.unlink(missing_ok=True)
    aside.symlink_to(checkpoint.name)
    os.replace(aside, folder / LATEST)


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """All checkpoints of a save folder, newest first, whole or not."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else []:
        match = NAME.fullmatch(path.name)
        if match and not path.is_symlink():
            found.append(Checkpoint(path, int(match.group(1)), int(match.group(2))))
    return sorted(found, key=lambda checkpoint: (checkpoint.batch, checkpoint.epoch), reverse=True)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint can be read: torch's files are zip archives, whose directory stands at the very end."""
    if checkpoint.is_dir():
        return (checkpoint / ".metadata").is_file()
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def newest_whole_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint to resume from; damaged ones are passed over and named in the log."""
    for checkpoint in list_checkpoints(folder):
        if is_whole(checkpoint.path):
            return checkpoint
        log.warning("%s: not a whole checkpoint, passed over", checkpoint.path)
    return None
