"""The checkpoints in a save folder, and the newest of them that is whole."""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from theworld.checkpoint.lineage import newest_start
from theworld.errors import NotNow

log = logging.getLogger(__name__)

CHECKED_BYTES = 4 << 30
SMALL_MEMBER = 1 << 20
SAVING = ".saving"
"""Sub-folder of a save folder: what is being written, and what a killed start left half written."""
ZIP_END = 1 << 16
PRETRAINED = "pretrained"
"""Sub-folder of a save folder: the model's configuration and processor as ``save_pretrained`` writes them."""
PREFIX = "model."
"""Composer's name for the model inside of its own, in front of the names of weights."""
NAME = re.compile(r"ep(\d+)-ba(\d+)(-rank0\.pt)?")


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint: a file, or with sharded FSDP a folder."""

    path: Path
    epoch: int
    batch: int


def parse_name(name: str) -> tuple[int, int]:
    """Epoch and batch of a checkpoint's name.

    Raises:
        ValueError: it is no such name.
    """
    match = NAME.fullmatch(name)
    if not match:
        raise ValueError(f"{name!r} is not a checkpoint's name")
    return int(match.group(1)), int(match.group(2))


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """All checkpoints of a save folder, newest first, whole or not."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else []:
        if NAME.fullmatch(path.name) and not path.is_symlink():
            found.append(Checkpoint(path, *parse_name(path.name)))
    return sorted(found, key=lambda checkpoint: (checkpoint.batch, checkpoint.epoch), reverse=True)


def clear_half_saves(folder: Path) -> None:
    """Remove what starts before have left half written; for a start that holds the save folder, or may take it."""
    shutil.rmtree(folder / SAVING, ignore_errors=True)


def is_whole(checkpoint: Path, contents: bool = True) -> bool:
    """Whether a checkpoint can be read.

    torch's files are zip archives: their directory stands at the very end, so a cut file has none, and every member
    has a CRC-32. A sharded checkpoint is a folder whose ``.metadata`` is written last.

    Args:
        checkpoint: the file or folder.
        contents: compare the CRCs too: of all members of a file of up to :data:`CHECKED_BYTES`, of the small members,
            torch's pickle among them, of a larger one, since reading tens of gigabytes twice takes minutes.

    Raises:
        OSError: it cannot be read now, which says nothing against it.
    """
    if checkpoint.is_dir():
        parts = [path for path in checkpoint.iterdir() if path.suffix == ".distcp"]
        return (checkpoint / ".metadata").is_file() and bool(parts) and all(path.stat().st_size for path in parts)
    read_end(checkpoint)
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            members = archive.infolist()
            end = archive.start_dir
            # zipfile shifts the offsets where bytes are missing before the directory, so that the first are below 0.
            if any(member.header_offset < 0 or member.header_offset + member.compress_size > end for member in members):
                return False
            if contents:
                small = checkpoint.stat().st_size <= CHECKED_BYTES
                for member in members:
                    if small or member.file_size <= SMALL_MEMBER:
                        read_through(archive, member)
            return any(member.filename.endswith("data.pkl") for member in members)
    except (zipfile.BadZipFile, EOFError, NotImplementedError):
        return False
    except OSError as error:
        if error.errno == errno.EINVAL:  # a place before the beginning, by a damaged directory
            return False
        raise


def read_end(path: Path) -> None:
    """Read the file's end, where zipfile takes an error of the file system for a damaged file.

    Raises:
        OSError: it cannot be read now.
    """
    with path.open("rb") as file:
        file.seek(-min(file.seek(0, os.SEEK_END), ZIP_END), os.SEEK_END)
        file.read()


def read_through(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Read a member to its end, where zipfile compares the CRC (BadZipFile if it is wrong)."""
    with archive.open(member) as file:
        while file.read(1 << 20):
            continue


def newest_whole_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint to resume from: of the newest start that has saved, the last one. What an older start saved after
    the place at which a newer one went on is of an abandoned future. Damaged ones are passed over and named in the log.

    Raises:
        NotNow: folder or checkpoint cannot be read now: an older one must not take the place of the newest.
    """
    try:
        for checkpoint in by_lineage(list_checkpoints(folder)):
            if is_whole(checkpoint.path):
                return checkpoint
            log.warning("%s: not a whole checkpoint, passed over", checkpoint.path)
    except OSError as error:
        raise NotNow(f"{folder}: the newest checkpoint cannot be read now ({error})") from error
    return None


def by_lineage(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Those of the newest start first, of each start the newest batch; what is damaged comes before them all.

    Raises:
        OSError: one cannot be read now.
    """
    if len(checkpoints) < 2:
        return checkpoints
    return sorted(checkpoints, key=lambda one: (_start_of(one), one.batch, one.epoch), reverse=True)


def newest_start_saved(folder: Path) -> int:
    """The newest start of the run that a checkpoint in the folder tells of; 0 if none does.

    Raises:
        NotNow: one cannot be read now.
    """
    try:
        starts = [_start_of(checkpoint) for checkpoint in list_checkpoints(folder)]
    except OSError as error:
        raise NotNow(f"{folder}: the checkpoints cannot be read now ({error})") from error
    return int(max((start for start in starts if start < math.inf), default=0))


def _start_of(checkpoint: Checkpoint) -> float:
    """The start that wrote it; endless if it is damaged, below all others if it has just been removed."""
    path = checkpoint.path
    try:
        if path.is_dir() and not is_whole(path):
            return math.inf
        if not path.is_dir():
            read_end(path)
        return newest_start(path)
    except FileNotFoundError:
        return -1
    except (zipfile.BadZipFile, EOFError, NotImplementedError):
        return math.inf
    except OSError as error:
        if error.errno == errno.EINVAL:  # a place before the beginning, by a damaged directory
            return math.inf
        raise
