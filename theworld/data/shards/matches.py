"""Entries held against the images that are there and the samples that are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from theworld.data.entries.catalog import Block
from theworld.data.entries.check_entry import held_out_below, id_key
from theworld.data.entries.images import positions
from theworld.data.shards.shard_plan import EVALUATION, TRAIN
from theworld.data.shards.write_shard import PASSING


@dataclass
class Matches:
    """How far a conversion is.

    Attributes:
        matched: good entries whose image is there, or that are written.
        written: good entries that are written.
        to_be: part to the samples that its data set has once every image has come: good entries without those whose
            image was rejected for good or is missing for good.
    """

    matched: int = 0
    written: int = 0
    to_be: Counter[str] = field(default_factory=Counter)

    def cap(self, most: int, samples: dict[str, int]) -> None:
        """Reduce the counts to ``most`` samples in all; ``samples`` is what each part holds already."""
        room = max(0, most - sum(samples.values()))
        for part, there in samples.items():
            self.to_be[part] = min(self.to_be[part], there + room)


def match_entries(
    blocks: Iterable[Block],
    images: np.ndarray,
    written: np.ndarray,
    rejected: Iterable[dict[str, Any]],
    missing: np.ndarray,
    holdout: float,
) -> Matches:
    """Count.

    Args:
        blocks: the good entries.
        images: (n,) uint64, keys of the images, sorted.
        written: (m,) uint64, keys of the samples, sorted.
        rejected: lines of the images that were rejected.
        missing: (k,) uint64, keys of the images that the download has found to be missing for good.
        holdout: share of ids that goes to the evaluation part.
    """
    found = Matches()
    bad = np.array([id_key(line["id"]) for line in rejected if line["reason"] not in PASSING], np.uint64)
    not_there = missing[~positions(images, missing)[1]]  # others have come in another way
    bad = np.unique(bad)
    threshold = np.uint64(held_out_below(holdout))
    for block in blocks:
        there, done = positions(images, block.images)[1], positions(written, block.keys)[1]
        found.matched += int((there | done).sum())
        found.written += int(done.sum())
        lost = positions(bad, block.keys)[1] | positions(not_there, block.images)[1]
        held_out, hopeless = block.keys < threshold, lost & ~done
        found.to_be[EVALUATION] += int((held_out & ~hopeless).sum())
        found.to_be[TRAIN] += int((~held_out & ~hopeless).sum())
    return found
