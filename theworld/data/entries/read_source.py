"""Entries of whatever they come in: a file of JSON, of Parquet, a folder of such files, a data set that is streamed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from theworld.data.entries.stream import BrokenJson, read_entries
from theworld.data.entries.streamed_set import ENDING as STREAMED
from theworld.data.entries.streamed_set import rows_by_note
from theworld.errors import UserError
from theworld.parquet_rows import read_rows

PARQUET = ".parquet"
ENDINGS = (".json", ".jsonl", ".ndjson", PARQUET)
PACKED = ("", ".gz", ".zst")


def read_source(path: Path, progress: Callable[[int], None] | None = None) -> Iterator[Any]:
    """Every item, in file order, of a folder's files in the order of their paths.

    Args:
        path: a file that :func:`~theworld.data.entries.stream.read_entries` reads, a Parquet file, whose rows are its
            items, or a folder.
        progress: called now and then with the bytes read so far.

    Raises:
        OSError, UserError, BrokenJson: as of one file; a folder's files behind a broken one are read all the same.
    """
    if not path.is_dir():
        yield from read_file(path, progress)
        return
    broken: BrokenJson | None = None
    before = 0
    for file in files_of(path):
        try:
            yield from read_file(file, None if progress is None else lambda read, start=before: progress(start + read))
        except BrokenJson as error:
            broken = broken or error
        before += file.stat().st_size
    if broken is not None:
        raise broken


def read_file(path: Path, progress: Callable[[int], None] | None) -> Iterator[Any]:
    """The items of one file."""
    if path.suffix == STREAMED:
        return rows_by_note(path)
    return read_rows(path) if path.suffix == PARQUET else read_entries(path, progress)


def files_of(folder: Path) -> list[Path]:
    """A folder's files of entries, those of folders in it too, by path; hidden ones are passed over.

    Raises:
        UserError: there is none.
    """
    names = {ending + packed for ending in ENDINGS for packed in PACKED}
    found: list[Path] = []
    for directory, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(directory, name) for name in files if not name.startswith(".") and name.endswith(tuple(names))]
    if not found:
        raise UserError(
            f"convert.json: {folder}: no file in it that ends with {', '.join(ENDINGS)}, plain, .gz or .zst"
        )
    return sorted(found)


def identity_of(path: Path) -> dict[str, Any]:
    """Tells one state of a file or folder from another."""
    if not path.is_dir():
        status = path.stat()
        return {"path": str(path.resolve()), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    digest, size = hashlib.sha256(), 0
    for file in files_of(path):
        status = file.stat()
        size += status.st_size
        digest.update(f"{file.relative_to(path)}\n{status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "replace"))
    return {"path": str(path.resolve()), "bytes": size, "files": digest.hexdigest()}
