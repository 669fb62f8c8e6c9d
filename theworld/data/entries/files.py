"""Writing files so that a kill or a full disk leaves the old one or the new one, never a half."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

TEMPORARY = ".tmp"


def sync_file(file: IO[Any]) -> None:
    """Flush to the disk itself."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_name(path: Path) -> Path:
    """A hidden name beside ``path`` that no other process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path``, whole, when the block ends without an error."""
    temporary = temporary_name(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            sync_file(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Replace ``path`` by an npz file (no pickle).

    Packed in memory first: on a full disk numpy's own writer leaves a zip file that complains when it is collected.
    """
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)
    with atomic_write(path) as file:
        file.write(packed.getbuffer())


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed process left of :func:`atomic_write`. Only while no other process writes there."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def read_json(path: Path) -> Any | None:
    """Parsed content, or None if the file is not there or not whole."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
