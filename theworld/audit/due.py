"""How often a pass owes each sample, where it mixes data sets; computed here by code of the audit's own.

What a pass takes of a source is written down with it when it begins: ``copies`` of each of its first ``samples``, one
more of ``extras`` of them, and of samples that came later (``known`` after each stage of the pass) one more of the
share ``more``; null where those are for the next pass. Which samples get one more follows from a key for each sample's
number, the finaliser of splitmix64: they are the next ones behind the key ``after``, in a circle.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
WORD = 2**64


@dataclass(frozen=True)
class SourceClaim:
    """What a pass says that it takes of a source."""

    name: str
    samples: int
    copies: int
    extras: int
    after: int
    seed: int
    more: str | None
    known: tuple[int, ...]
    """Samples that belong to the pass, at each of its stages."""

    @property
    def grows(self) -> bool:
        return self.more is not None

    def due(self, now: int | None = None) -> Counts:
        """How often each sample of the source is due, (known,).

        Args:
            now: samples that there are by now, if later ones still join the pass.
        """
        ends = [*self.known, now] if now is not None and self.grows and now > self.known[-1] else [*self.known]
        due = np.full(ends[-1], self.copies, np.int64)
        due[self.in_turn(0, self.samples, self.extras)] += 1
        share = Fraction(self.more or 0)
        first = self.samples
        for end in ends:
            if end > first:
                due[self.in_turn(first, end, half_up(share * end) - half_up(share * first))] += 1
                first = end
        return due

    def in_turn(self, first: int, end: int, count: int) -> Counts:
        """The ``count`` samples of ``first .. end - 1`` that come next behind ``after``."""
        salt = hashlib.blake2b(f"{self.seed} {self.name}".encode(), digest_size=8).digest()
        keys = np.arange(first + 1, end + 1, dtype=np.uint64)
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + np.uint64(int.from_bytes(salt, "big"))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            keys = (keys ^ keys >> np.uint64(shift)) * np.uint64(factor)
        keys ^= keys >> np.uint64(31)
        # Distances in the circle of 2**64 keys: the key ``after`` itself is the farthest away.
        distance = keys - np.uint64((self.after + 1) % WORD)
        return first + np.argsort(distance)[:count]


def half_up(number: Fraction) -> int:
    return int((2 * number + 1) // 2)


def parse_mix(content: dict[str, Any] | None) -> list[SourceClaim]:
    """The sources of a pass, as a proof has them; none where it was over a single data set."""
    if content is None:
        return []
    names = ("name", "samples", "copies", "extras", "after", "seed", "more")
    return [
        SourceClaim(*(one[name] for name in names), known=tuple(stage[place] for stage in content["known"]))
        for place, one in enumerate(content["portions"])
    ]
