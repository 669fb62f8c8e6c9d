"""One pass over the image folder, kept as compact arrays."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from theworld.data.entries.check_entry import IMAGE_SUFFIXES, id_key, image_id
from theworld.data.entries.choose_images import Files, PassedOver, choose
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
        passed_over: files that were not taken, by reason.
        unreadable: what could not be looked into, and why, a line each.
    """

    keys: np.ndarray
    sizes: np.ndarray
    mtimes: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    names: bytes
    repeated: int = 0
    passed_over: list[PassedOver] = field(default_factory=list)
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


class Listing:
    """Image files in the order in which they are found."""

    def __init__(self) -> None:
        self.keys, self.sizes, self.mtimes, self.lengths = array("Q"), array("q"), array("q"), array("q")
        self.suffixes, self.folders = array("B"), array("I")
        self.names = bytearray()
        self.folder_names: list[str] = []
        self.unreadable: list[str] = []

    def read(self, folder: Path, relative: str) -> list[str]:
        """Take the image files of one directory; gives the directories in it.

        Raises:
            OSError: it cannot be listed.
        """
        inner: list[str] = []
        with os.scandir(folder / relative) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = os.path.join(relative, entry.name)
                if is_folder(entry):
                    inner.append(path)
                elif image_suffix(entry.name) in IMAGE_SUFFIXES and (status := stat_or_none(entry)):
                    self._add(relative, entry.name, path, status)
        return inner

    def _add(self, relative: str, name: str, path: str, status: os.stat_result) -> None:
        if not self.folder_names or self.folder_names[-1] != relative:
            self.folder_names.append(relative)
        encoded = os.fsencode(path)
        self.keys.append(id_key(image_id(printable(name))))
        self.sizes.append(status.st_size)
        self.mtimes.append(status.st_mtime_ns)
        self.lengths.append(len(encoded))
        self.suffixes.append(IMAGE_SUFFIXES.index(image_suffix(name)))
        self.folders.append(len(self.folder_names) - 1)
        self.names += encoded

    def table(self, named: Sequence[str] | None, keep_unclear: bool) -> ImageTable:
        """One file for each id (:func:`~theworld.data.entries.choose_images.choose`)."""
        keys, sizes = np.array(self.keys, np.uint64), np.array(self.sizes, np.int64)
        mtimes, lengths = np.array(self.mtimes, np.int64), np.array(self.lengths, np.int64)
        found = ImageTable(keys, sizes, mtimes, np.cumsum(lengths) - lengths, lengths, bytes(self.names))
        suffixes, folders = np.array(self.suffixes, np.int64), np.array(self.folders, np.int64)
        files = Files(keys, sizes, suffixes, folders, self.folder_names, found.path)
        rows, passed_over = choose(files, named, keep_unclear)
        return ImageTable(
            *(column[rows] for column in (keys, sizes, mtimes, found.starts, lengths)),
            names=found.names,
            repeated=len(found) - len(rows) - sum(one.count for one in passed_over),
            passed_over=passed_over,
            unreadable=sorted(self.unreadable),
        )


def scan_images(folder: Path, named: Sequence[str] | None = None, keep_unclear: bool = False) -> ImageTable:
    """Every image file below ``folder``, one for each id; each directory is listed once.

    Files with a leading dot and files with any other suffix (a downloader's temporary names) are passed over.

    Args:
        folder: the image folder.
        named: ``convert.image_folders``.
        keep_unclear: take one of several files of an id that differ, instead of none.

    Raises:
        UserError: the folder itself cannot be read; a folder or link below it that cannot is passed over and named.
    """
    listing = Listing()
    pending = [""]
    seen: set[tuple[int, int]] = set()
    while pending:
        relative = pending.pop()
        try:
            directory = os.stat(folder / relative)
            if (directory.st_dev, directory.st_ino) in seen:  # a link that leads back up
                continue
            seen.add((directory.st_dev, directory.st_ino))
            pending += listing.read(folder, relative)
        except OSError as error:
            if not relative:
                raise UserError(f"{folder}: cannot read the images: {error.strerror}; set convert.images") from error
            listing.unreadable.append(f"{relative}: {error.strerror}")
    return listing.table(named, keep_unclear)


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
