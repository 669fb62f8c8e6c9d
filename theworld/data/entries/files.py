"""Writing files so that a kill or a full disk leaves the old one or the new one, never a half."""

from __future__ import annotations

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
    """A file that takes the place of ``path``, whole, when the block ends without an error.

    Its content is flushed to the disk; that it has taken the place only lasts through a power cut
    after :func:`sync_folder`.
    """
    temporary = temporary_name(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            sync_file(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Replace ``path`` by one-dimensional arrays: a line of JSON that describes them, then their bytes.

    Not npz: that needs a second copy in memory, and its writer cannot report a full disk in one line.
    """
    columns = [[name, array.dtype.str, len(array)] for name, array in arrays.items()]
    with atomic_write(path) as file:
        file.write(json.dumps(columns).encode() + b"\n")
        for array in arrays.values():
            file.write(array.tobytes())


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What :func:`save_arrays` wrote."""
    with open(path, "rb") as file:
        columns = json.loads(file.readline())
        return {name: np.fromfile(file, dtype, length) for name, dtype, length in columns}


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
