"""One pass over the image folder, kept as compact arrays."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from theworld.data.entries.check_entry import IMAGE_SUFFIXES, id_key, image_id
from theworld.errors import UserError
from theworld.files import load_arrays, save_arrays


@dataclass
class ImageTable:
    """Image files, one per id, sorted by :func:`id_key`; n rows.

    Attributes:
        keys: (n,) uint64.
        sizes: (n,) int64, bytes.
        mtimes: (n,) int64, nanoseconds.
        starts: (n,) int64, where each path begins in ``names``.
        lengths: (n,) int64, bytes of each path.
        names: paths relative to the folder, UTF-8 with surrogate escapes, one after the other.
        repeated: files beyond the first for their id.
        unreadable: what could not be looked into, and why, a line each.
    """

    keys: np.ndarray
    sizes: np.ndarray
    mtimes: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    names: bytes
    repeated: int = 0
    unreadable: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    def path(self, row: int) -> str:
        """Path of one image, relative to the folder."""
        start = int(self.starts[row])
        return os.fsdecode(self.names[start : start + int(self.lengths[row])])

    def select(self, wanted: np.ndarray) -> ImageTable:
        """The rows where ``wanted`` (n,) bool is true, with names of their own."""
        if wanted.all():
            return self
        rows = np.flatnonzero(wanted)
        lengths = self.lengths[rows]
        names = b"".join(
            self.names[start : start + length] for start, length in zip(self.starts[rows], lengths, strict=True)
        )
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64) if len(rows) else lengths
        return ImageTable(self.keys[rows], self.sizes[rows], self.mtimes[rows], starts, lengths, names)

    def save(self, path: Path) -> None:
        """Write to a file."""
        columns = {"keys": self.keys, "sizes": self.sizes, "mtimes": self.mtimes}
        places = {"starts": self.starts, "lengths": self.lengths, "names": np.frombuffer(self.names, np.uint8)}
        save_arrays(path, columns | places)

    @classmethod
    def load(cls, path: Path) -> ImageTable:
        """What :meth:`save` wrote."""
        columns = load_arrays(path)
        return cls(**{**columns, "names": columns["names"].tobytes()})  # type: ignore[arg-type]


def positions(table: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where keys are in a sorted table.

    Args:
        table: (n,) uint64, sorted.
        keys: (m,) uint64.

    Returns:
        (m,) int64 rows, and (m,) bool whether the key is at that row.
    """
    if not len(table):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
    rows = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return rows, table[rows] == keys


def scan_images(folder: Path) -> ImageTable:
    """Every image file below ``folder``; each directory is listed once.

    Files with a leading dot and files with any other suffix (a downloader's temporary names) are
    passed over. When an id has several files, the one whose suffix comes first in
    ``IMAGE_SUFFIXES`` counts, then the one whose path sorts first, so that the order of the listing
    does not matter.

    Raises:
        UserError: the folder itself cannot be read; a folder or link below it that cannot is passed over and named.
    """
    keys, sizes, mtimes, lengths = array("Q"), array("q"), array("q"), array("q")
    names = bytearray()
    pending = [""]
    seen: set[tuple[int, int]] = set()
    unreadable: list[str] = []
    while pending:
        relative = pending.pop()
        try:
            directory = os.stat(folder / relative)
            if (directory.st_dev, directory.st_ino) in seen:  # a link that leads back up
                continue
            seen.add((directory.st_dev, directory.st_ino))
            with os.scandir(folder / relative) as listing:
                for entry in listing:
                    if entry.name.startswith("."):
                        continue
                    path = os.path.join(relative, entry.name)
                    if is_folder(entry):
                        pending.append(path)
                    elif image_suffix(entry.name) in IMAGE_SUFFIXES and (status := stat_or_none(entry)):
                        encoded = os.fsencode(path)
                        keys.append(id_key(image_id(printable(entry.name))))
                        sizes.append(status.st_size)
                        mtimes.append(status.st_mtime_ns)
                        lengths.append(len(encoded))
                        names += encoded
        except OSError as error:
            if not relative:
                raise UserError(f"{folder}: cannot read the images: {error.strerror}; set convert.images") from error
            unreadable.append(f"{relative}: {error.strerror}")
    table = sorted_table(keys, sizes, mtimes, lengths, bytes(names))
    table.unreadable = sorted(unreadable)
    return table


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link of which that cannot be told, so that looking into it says why."""
    try:
        return entry.is_dir()
    except OSError:
        return True


def image_suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def printable(name: str) -> str:
    """A name that can be hashed even if the file system holds bytes that are not UTF-8."""
    return name.encode("utf-8", "replace").decode("utf-8")


def stat_or_none(entry: os.DirEntry[str]) -> os.stat_result | None:
    """The file's status, or None if it went away since the listing (a downloader renamed it)."""
    try:
        return entry.stat()
    except FileNotFoundError:
        return None


def sorted_table(keys: array, sizes: array, mtimes: array, lengths: array, names: bytes) -> ImageTable:
    """Arrays in listing order to a table sorted by key with one row per id."""
    all_lengths = np.array(lengths, np.int64)
    starts = np.cumsum(all_lengths) - all_lengths
    all_keys = np.array(keys, np.uint64)
    order = np.argsort(all_keys, kind="stable")
    table = ImageTable(
        all_keys[order],
        np.array(sizes, np.int64)[order],
        np.array(mtimes, np.int64)[order],
        starts[order],
        all_lengths[order],
        names,
    )
    same = np.flatnonzero(table.keys[1:] == table.keys[:-1])
    if not len(same):
        return table
    keep = np.ones(len(table), bool)
    for key in np.unique(table.keys[same]):
        rows = key_rows(table.keys, key)
        best = min(rows, key=lambda row: preference(table.path(row)))
        keep[rows] = False
        keep[best] = True
    reduced = table.select(keep)
    reduced.repeated = int(len(table) - len(reduced))
    return reduced


def key_rows(keys: np.ndarray, key: np.uint64) -> np.ndarray:
    return np.arange(np.searchsorted(keys, key, "left"), np.searchsorted(keys, key, "right"))


def preference(path: str) -> tuple[int, str]:
    return IMAGE_SUFFIXES.index(image_suffix(path)), path
