"""What was found in the image folder the last time, on disk: names by directory, and each directory's times."""

from __future__ import annotations

import json
from array import array
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from theworld.files import load_arrays, save_arrays

VERSION = 1
NOT_LOOKED_AT = -1
"""The size of a file that nobody has asked for."""
TYPES = {"keys": "Q", "sizes": "q", "mtimes": "q", "lengths": "I", "suffixes": "B"}


@dataclass(frozen=True)
class Directory:
    """One directory.

    Attributes:
        name: relative to the image folder.
        stamp: its number and times by which a listing is known to be of today; None: it must be listed again.
        first, end: its rows.
        inner: directories in it.
    """

    name: str
    stamp: list[int] | None
    first: int
    end: int
    inner: list[str]


class Rows:
    """Image files, n rows in columns that grow.

    Attributes:
        keys: of their ids.
        sizes, mtimes: in bytes and nanoseconds; ``NOT_LOOKED_AT`` and 0 where nobody has asked.
        lengths: bytes of each path.
        suffixes: place in ``IMAGE_SUFFIXES``.
        names: paths relative to the image folder, one after the other.
    """

    def __init__(self) -> None:
        self.keys, self.sizes, self.mtimes = array("Q"), array("q"), array("q")
        self.lengths, self.suffixes = array("I"), array("B")
        self.names = bytearray()

    def __len__(self) -> int:
        return len(self.keys)

    def column(self, name: str) -> np.ndarray:
        """(n,) a column; to be used before the next row comes."""
        return np.array(getattr(self, name), dtype=np.dtype(TYPES[name]))

    def starts(self) -> np.ndarray:
        """(n,) int64, where each path begins in ``names``."""
        lengths = self.column("lengths").astype(np.int64)
        return np.cumsum(lengths) - lengths

    def add(self, key: int, suffix: int, path: bytes) -> None:
        """A file that nobody has looked at."""
        self.keys.append(key)
        self.sizes.append(NOT_LOOKED_AT)
        self.mtimes.append(0)
        self.lengths.append(len(path))
        self.suffixes.append(suffix)
        self.names += path

    def copy(self, others: Rows, directory: Directory) -> None:
        """Take over the rows of a directory that has not changed."""
        rows = slice(directory.first, directory.end)
        for name in TYPES:
            getattr(self, name).extend(getattr(others, name)[rows])
        starts = others.name_starts
        self.names += others.names[starts[directory.first] : starts[directory.end]]

    def carry_over(self, first: int, others: Rows, directory: Directory) -> None:
        """Of a directory that has changed: what was known of the files that are still there, rows ``first`` to the
        end."""
        rows = slice(directory.first, directory.end)
        known = np.array(others.keys[rows], np.uint64)
        new = np.array(self.keys[first:], np.uint64)
        if not len(known) or not len(new):
            return
        order = np.argsort(known)
        places = order[np.minimum(np.searchsorted(known[order], new), len(known) - 1)]
        same = (known[places] == new) & (
            np.array(others.suffixes[rows])[places] == np.array(self.suffixes[first:], np.uint8)
        )
        for column in ("sizes", "mtimes"):
            own, before = getattr(self, column), np.array(getattr(others, column)[rows], np.int64)
            own[first:] = array("q", np.where(same, before[places], np.array(own[first:], np.int64)).tobytes())

    def replace(self, sizes: np.ndarray, mtimes: np.ndarray) -> bool:
        """Put others in place of these columns; True if any differs."""
        differs = bool((sizes != self.column("sizes")).any() or (mtimes != self.column("mtimes")).any())
        if differs:
            self.sizes, self.mtimes = array("q", sizes.tobytes()), array("q", mtimes.tobytes())
        return differs

    @property
    def name_starts(self) -> np.ndarray:
        """(n + 1,) int64; kept, for rows that do not change any more."""
        if not hasattr(self, "_name_starts"):
            self._name_starts = np.concatenate([[0], np.cumsum(self.column("lengths").astype(np.int64))])
        return self._name_starts


@dataclass
class FolderIndex:
    """What a pass found.

    Attributes:
        folder: the image folder.
        rows: its files, directory by directory.
        directories: by name.
    """

    folder: Path
    rows: Rows = field(default_factory=Rows)
    directories: dict[str, Directory] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it to a file."""
        about = {
            "version": VERSION,
            "folder": str(self.folder.absolute()),
            "directories": [asdict(one) for one in self.directories.values()],
        }
        columns = {name: self.rows.column(name) for name in TYPES}
        texts = {"names": bytes(self.rows.names), "about": json.dumps(about).encode()}
        save_arrays(path, columns | {name: np.frombuffer(text, np.uint8) for name, text in texts.items()})

    @classmethod
    def load(cls, path: Path | None, folder: Path) -> FolderIndex:
        """What :meth:`save` wrote of the folder; empty if nobody did, or of another, or it is damaged."""
        empty = cls(folder)
        if path is None:
            return empty
        try:
            stored = load_arrays(path)
            about: dict[str, Any] = json.loads(stored["about"].tobytes())
            if about["version"] != VERSION or about["folder"] != str(folder.absolute()):
                return empty
            rows = Rows()
            for name, kind in TYPES.items():
                setattr(rows, name, array(kind, stored[name].tobytes()))
            rows.names = bytearray(stored["names"].tobytes())
            directories = {one["name"]: Directory(**one) for one in about["directories"]}
            whole = {len(getattr(rows, name)) for name in TYPES} == {max(one.end for one in directories.values())}
        except (OSError, ValueError, KeyError, TypeError):
            return empty  # it is made anew
        return cls(folder, rows, directories) if whole and rows.name_starts[-1] == len(rows.names) else empty
