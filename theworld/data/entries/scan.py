"""One pass over the image folder: the names of all files, and a look at those that may still become samples.

A directory whose times are those of the last pass is not listed again: what it holds is in the index of the folder that
the converter keeps. Of a file that is in the data set already nothing is asked, neither size nor time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from theworld.data.entries.check_entry import IMAGE_SUFFIXES, id_key, image_id
from theworld.data.entries.choose_images import Files, choose
from theworld.data.entries.folder_index import NOT_LOOKED_AT, Directory, FolderIndex, Rows
from theworld.data.entries.folder_kinds import HEAD
from theworld.data.entries.images import ImageTable, positions
from theworld.data.entries.tar_images import with_tars
from theworld.errors import UserError

FOLDER_INDEX = "image-folder"
"""In the converter's state: what the image folder held the last time."""
PATH_INDEX = "image-folder-by-path"
"""The same, of images that are known by their path."""
SETTLED = 60 * 10**9
"""Nanoseconds after a directory's last change from which its times tell it from what it will be after the next one:
clocks differ, and file systems count in steps of up to two seconds."""

Needed = Callable[[np.ndarray], np.ndarray]
"""Keys (n,) uint64 -> (n,) bool: whose files are to be looked at."""


class Listing:
    """Image files in the order in which they are found.

    Args:
        folder: the image folder.
        known: what an earlier pass found.
        by_path: files are known by their path below the folder instead of by their name; both without suffix.
    """

    def __init__(self, folder: Path, known: FolderIndex, by_path: bool = False) -> None:
        self.folder = folder
        self.known = known
        self.by_path = by_path
        self.rows = Rows()
        self.directories: list[Directory] = []
        self.unreadable: list[str] = []
        self.changed = False
        """Whether anything differs from what was known."""

    def read(self, relative: str, status: os.stat_result) -> list[str]:
        """Take the image files of one directory; gives the directories in it.

        Raises:
            OSError: it cannot be listed.
        """
        stamp = [status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        first, before = len(self.rows), self.known.directories.get(relative)
        if before is not None and before.stamp == stamp:
            self.rows.copy(self.known.rows, before)
            inner = before.inner
        else:
            listed = time.time_ns()
            inner = self._list(relative)
            if before is not None:
                self.rows.carry_over(first, self.known.rows, before)
            if listed - max(stamp[1:]) < SETTLED:
                stamp = None
            self.changed = True
        self.directories.append(Directory(relative, stamp, first, len(self.rows), inner))
        return inner

    def _list(self, relative: str) -> list[str]:
        inner: list[str] = []
        with os.scandir(self.folder / relative) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if is_folder(entry):
                    inner.append(os.path.join(relative, entry.name))
                elif image_suffix(entry.name) in IMAGE_SUFFIXES:
                    path = os.path.join(relative, entry.name)
                    key = id_key(image_id(printable(path if self.by_path else entry.name)))
                    suffix = IMAGE_SUFFIXES.index(image_suffix(entry.name))
                    self.rows.add(key, suffix, os.fsencode(path))
        return inner

    def look(self, needed: Needed | None) -> np.ndarray:
        """Sizes and times of the files that are needed, as they are now.

        Args:
            needed: None: all.

        Returns:
            (n,) bool: rows of files that are there; others went away since the listing (a downloader renamed them).
        """
        rows = self.rows
        wanted = np.ones(len(rows), bool) if needed is None else needed(rows.column("keys"))
        # Of an id with several files each counts, for whether they differ.
        keys, counts = np.unique(rows.column("keys"), return_counts=True)
        several = np.isin(rows.column("keys"), keys[counts > 1])
        wanted |= several & (rows.column("sizes") == NOT_LOOKED_AT)
        there = np.ones(len(rows), bool)
        sizes, mtimes = rows.column("sizes").copy(), rows.column("mtimes").copy()
        starts = rows.starts()
        for row in np.flatnonzero(wanted).tolist():
            path = os.fsdecode(bytes(rows.names[starts[row] : starts[row] + rows.lengths[row]]))
            try:
                status = os.stat(self.folder / path)
            except FileNotFoundError:
                there[row] = False
            except OSError as error:
                there[row] = False
                self.unreadable.append(f"{path}: {error.strerror}")
            else:
                sizes[row], mtimes[row] = status.st_size, status.st_mtime_ns
        self.changed |= rows.replace(sizes, mtimes)
        return there

    def table(self, there: np.ndarray, named: Sequence[str] | None, keep_unclear: bool) -> ImageTable:
        """One file for each id (:func:`~theworld.data.entries.choose_images.choose`)."""
        rows, starts = self.rows, self.rows.starts()
        keys, sizes, mtimes = (rows.column(name)[there] for name in ("keys", "sizes", "mtimes"))
        starts, lengths = starts[there], rows.column("lengths").astype(np.int64)[there]
        found = ImageTable(keys, sizes, mtimes, starts, lengths, bytes(rows.names))
        folders = np.repeat(np.arange(len(self.directories)), [one.end - one.first for one in self.directories])
        used, places = np.unique(folders[there], return_inverse=True)  # a folder without images has no say
        names = [self.directories[number].name for number in used]
        suffixes = rows.column("suffixes").astype(np.int64)[there]

        def head(row: int) -> bytes | None:
            return read_head(self.folder / found.path(row))

        files = Files(keys, sizes, suffixes, places, names, found.path, self.folder.absolute().name, head)
        chosen, passed_over = choose(files, named, keep_unclear, self.by_path)
        return ImageTable(
            *(column[chosen] for column in (keys, sizes, mtimes, starts, lengths)),
            names=found.names,
            repeated=len(found) - len(chosen) - sum(one.count for one in passed_over),
            passed_over=passed_over,
            unreadable=sorted(self.unreadable),
        )


def scan_images(
    folder: Path,
    named: Sequence[str] | None = None,
    keep_unclear: bool = False,
    index: Path | None = None,
    needed: Needed | None = None,
    keep_index: bool = True,
    by_path: bool = False,
) -> ImageTable:
    """Every image file below ``folder``, one for each id; each directory is listed once at the most.

    Files with a leading dot and files with any other suffix (a downloader's temporary names) are passed over.

    Args:
        folder: the image folder.
        named: ``convert.image_folders``.
        keep_unclear: look into no file, and take one of several of an id that differ, instead of none.
        index: file that keeps what was found for the next time; None: every directory is listed.
        needed: which files are to be looked at. Size and time of the others are those of when they last were, or
            :data:`~theworld.data.entries.folder_index.NOT_LOOKED_AT`. None: all.
        keep_index: write the index; False: only read it.
        by_path: files are known by their path below the folder instead of by their name; both without suffix. Then
            whoever asks for a file names just that one, so that none is left out for what it looks like, and what is
            inside of tars counts too.

    Raises:
        UserError: the folder itself cannot be read; a folder, link or file below it that cannot is passed over and
            named.
    """
    listing = list_folder(folder, FolderIndex.load(index, folder), by_path)
    there = listing.look(needed)
    if index is not None and keep_index and listing.changed:
        FolderIndex(folder, listing.rows, {one.name: one for one in listing.directories}).save(index)
    table = listing.table(there, named, keep_unclear)
    return with_tars(folder, table) if by_path else table


def list_folder(folder: Path, known: FolderIndex, by_path: bool = False) -> Listing:
    """The names below ``folder``; see :func:`scan_images`."""
    listing = Listing(folder, known, by_path)
    pending = [""]
    seen: set[tuple[int, int]] = set()
    while pending:
        relative = pending.pop()
        try:
            directory = os.stat(folder / relative)
            if (directory.st_dev, directory.st_ino) in seen:  # a link that leads back up
                continue
            seen.add((directory.st_dev, directory.st_ino))
            pending += listing.read(relative, directory)
        except OSError as error:
            if not relative:
                raise UserError(f"{folder}: cannot read the images: {error.strerror}; set convert.images") from error
            listing.unreadable.append(f"{relative}: {error.strerror}")
    return listing


def files_to_look_at(
    keys: np.ndarray, written: np.ndarray, named: np.ndarray | None, rejected: Sequence[int]
) -> np.ndarray:
    """Which files may still become samples.

    Args:
        keys: (n,) uint64, of the files.
        written: (m,) uint64, sorted, of the samples.
        named: (k,) uint64, of the JSON's good entries; None if nobody has read it.
        rejected: of images that were rejected; one that has been replaced is tried again.

    Returns:
        (n,) bool.
    """
    needed = ~positions(written, keys)[1]
    if named is not None:
        needed &= np.isin(keys, np.concatenate([named, np.array(rejected, np.uint64)]))
    return needed


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


def read_head(path: Path) -> bytes | None:
    """The first :data:`HEAD` bytes of a file; None if it cannot be read, which is said when it is converted."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(HEAD)
    except OSError:
        return None
