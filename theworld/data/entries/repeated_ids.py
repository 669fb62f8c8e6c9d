"""Ids seen so far, and names for what has an id that was there before."""

from __future__ import annotations

import numpy as np

from theworld.data.entries.check_entry import id_key

MARK = "#"
"""Between an id and the number of its place among those that have it: a, a#2, a#3."""


class SeenKeys:
    """The keys so far, as a sorted array: 8 bytes each, where a set of int takes a hundred."""

    def __init__(self) -> None:
        self.keys = np.zeros(0, np.uint64)
        self.repeated = 0

    def add(self, keys: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the keys (n,) uint64 come for the first time; the others are counted."""
        first = np.zeros(len(keys), bool)
        first[np.unique(keys, return_index=True)[1]] = True
        places = np.searchsorted(self.keys, keys)
        if len(self.keys):
            first &= self.keys[np.minimum(places, len(self.keys) - 1)] != keys
        order = np.argsort(keys[first])
        self.keys = np.insert(self.keys, places[first][order], keys[first][order])
        self.repeated += int(len(keys) - first.sum())
        return first


class Suffixes:
    """Names for entries whose id was there before, in the order of the file."""

    def __init__(self) -> None:
        self.last: dict[int, int] = {}
        self.count = 0

    def next_name(self, entry_id: str) -> str:
        """A name for one more entry of an id."""
        key = id_key(entry_id)
        self.last[key] = self.last.get(key, 1) + 1
        self.count += 1
        return f"{entry_id}{MARK}{self.last[key]}"
