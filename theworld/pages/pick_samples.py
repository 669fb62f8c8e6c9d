"""Which samples of a data set a page shows, and how they are read."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from theworld.data.cache.snapshot import Snapshot, read_snapshot
from theworld.data.shards.ids import data_set_ids
from theworld.data.shards.read_shard import OpenShard
from theworld.errors import UserError, first_line

MOST_LOOKED_AT = 20_000
"""Samples that a search for rare ones reads before it gives up."""


class StoredSamples:
    """The samples of a data set on the disk, by their place in it.

    Args:
        root: ``convert.out``, or any folder of MDS shards.

    Raises:
        UserError: it is no data set.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; give the folder of convert.out")
        self.root = root
        self.snapshot: Snapshot = read_snapshot(str(root))
        self.ends = list(accumulate(self.snapshot.shard_sizes))
        self._opened: tuple[int, OpenShard] | None = None

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, place: int) -> dict[str, Any]:
        """The columns of the sample at a place.

        Raises:
            UserError: its shard cannot be read.
        """
        shard = bisect_right(self.ends, place)
        first = self.ends[shard - 1] if shard else 0
        try:
            if self._opened is None or self._opened[0] != shard:
                self._opened = shard, open_shard(self.root, self.snapshot.shards[shard])
            return self._opened[1].reader[place - first]
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise UserError(
                f"{self.root}: shard {shard} cannot be read ({first_line(error)}); run convert/verify.py"
            ) from error

    def generation(self, place: int) -> str:
        """The name of the generation that has the sample at a place."""
        ends = list(accumulate(one.samples for one in self.snapshot.generations))
        return self.snapshot.generations[bisect_right(ends, place)].name

    def places_of(self, ids: Sequence[str]) -> list[int]:
        """Where the samples of these ids are, in the same order.

        Raises:
            UserError: the data set lacks one.
        """
        wanted, found, first = set(ids), {}, 0
        for generation in data_set_ids(str(self.root)):
            for place, name in enumerate(generation.ids(), first):
                if name in wanted:
                    found.setdefault(name, place)
                first = place + 1
        for name in ids:
            if name not in found:
                raise UserError(
                    f"--id {name}: not in {self.root}; its image may not have arrived, or see rejected.jsonl"
                )
        return [found[name] for name in ids]

    def some(self, count: int, seed: int) -> list[int]:
        """Places of ``count`` samples by chance, in the order of the data set, so that each shard is opened once."""
        return sorted(random.Random(seed).sample(range(len(self)), min(count, len(self))))

    def search(self, wanted: Callable[[dict[str, Any]], bool], count: int, seed: int) -> tuple[list[int], int]:
        """Places of the first ``count`` samples, in an order of chance, that are wanted, and how many were read."""
        found: list[int] = []
        looked = 0
        for place in self.by_chance(seed):
            looked += 1
            if wanted(self[place]):
                found.append(place)
                if len(found) == count:
                    break
        return sorted(found), looked

    def by_chance(self, seed: int) -> Iterator[int]:
        """At most :data:`MOST_LOOKED_AT` places, each once."""
        yield from random.Random(seed).sample(range(len(self)), min(MOST_LOOKED_AT, len(self)))


def open_shard(root: Path, entry: dict[str, Any]) -> OpenShard:
    """A shard of the root index, whose names may begin with a generation's folder."""
    folder = root / Path(entry["raw_data"]["basename"]).parent
    own = dict(entry)
    for kind in ("raw_data", "zip_data"):
        if own.get(kind):
            own[kind] = {**own[kind], "basename": Path(own[kind]["basename"]).name}
    return OpenShard(folder, own)
