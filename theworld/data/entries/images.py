"""Image files as compact arrays."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from theworld.data.entries.choose_images import PassedOver
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
