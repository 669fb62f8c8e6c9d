"""What a run is held against: the ids of a data set, by generation."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from theworld.audit.claim import MODULUS, Sum
from theworld.audit.count import NAMED, Keys, Tally, hash_id, key_of
from theworld.audit.due import Counts

WHOLE = "all"
"""The one generation of a data set that other tools made."""


@dataclass(frozen=True)
class GenerationIds:
    """One generation: its name, its fingerprint if it has one, and its ids, read anew at each call."""

    name: str
    fingerprint: str | None
    ids: Callable[[], Iterable[str]]


@dataclass(frozen=True)
class DataSet:
    """What the run is held against; ``why_not`` says why there is nothing."""

    generations: list[GenerationIds] | None = None
    why_not: str = "no data set is named"


@dataclass
class KnownGeneration:
    """A generation of which the ids were read."""

    source: GenerationIds
    keys: Keys
    sum: Sum

    @classmethod
    def read(cls, source: GenerationIds) -> KnownGeneration:
        tally = Tally()
        for sample_id in source.ids():
            tally.add(sample_id)
        return cls(source, tally.keys, tally.sum)

    @property
    def data_set(self) -> str:
        """The name of the data set that it is of; empty where there is but one."""
        return self.source.name.rpartition("/")[0]

    def unseen(self, seen: Keys) -> Keys:
        """Keys of its ids that are not among these."""
        return self.keys[~np.isin(self.keys, seen)]

    def sum_of(self, due: Counts) -> Sum:
        """The sum of its ids, each as often as it is due."""
        hashes = [hash_id(one) * int(times) for one, times in zip(self.source.ids(), due, strict=True)]
        return Sum(int(due.sum()), sum(hashes) % MODULUS)

    def names(self, keys: set[int]) -> list[str]:
        """The ids that some keys stand for, the first :data:`NAMED`."""
        found: list[str] = []
        for sample_id in self.source.ids() if keys else ():
            if len(found) == NAMED:
                break
            if key_of(hash_id(sample_id)) in keys:
                found.append(sample_id)
        return found


@dataclass
class JsonIds:
    """The ids that the conversations name; ``why_not`` says why they are not known."""

    ids: Iterable[str] | None = None
    why_not: str = "no JSON is named"

    _keys: Keys | None = field(default=None, repr=False)

    def unseen(self, seen: Keys) -> int:
        """How many of them are not among these keys."""
        if self._keys is None:
            self._keys = np.unique(np.array(array("Q", (key_of(hash_id(one)) for one in self.ids or ())), np.uint64))
        return int((~np.isin(self._keys, seen)).sum())
