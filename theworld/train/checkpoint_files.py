"""The checkpoints in a save folder, and the newest of them that is whole."""

from __future__ import annotations

import logging
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

NAME = re.compile(r"ep(\d+)-ba(\d+)(-rank0\.pt)?")


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint: a file, or with sharded FSDP a folder."""

    path: Path
    epoch: int
    batch: int


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
