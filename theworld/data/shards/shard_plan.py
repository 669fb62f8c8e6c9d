"""Which sample goes into which shard: a pure function of the entries, the images and the settings."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from theworld.data.entries.catalog import Block
from theworld.data.entries.check_entry import held_out_below
from theworld.data.entries.images import ImageTable, positions
from theworld.data.shards.mds import BYTES_PER_OFFSET, ShardFormat

TRAIN = "train"
EVALUATION = "eval"
PARTS = (TRAIN, EVALUATION)
NOTHING = np.zeros(0, np.uint64)


@dataclass(frozen=True)
class ShardJob:
    """One shard to write; n samples in their order.

    Attributes:
        part: TRAIN or EVALUATION.
        number: of the shard within its generation, from 0.
        records: n pairs of offset and length in the catalog's records.
        images: n triples of path in the image folder, size and modification time (ns) when scanned.
    """

    part: str
    number: int
    records: list[tuple[int, int]]
    images: list[tuple[str, int, int]]

    @property
    def name(self) -> str:
        """Tells jobs of one generation apart."""
        return f"{self.part}-{self.number:05}"

    @property
    def bytes(self) -> int:
        """Image bytes in the shard."""
        return sum(size for _, size, _ in self.images)


class ShardCutter:
    """Collects samples of one part until a shard is full, by MDSWriter's rule."""

    def __init__(self, part: str, layout: ShardFormat) -> None:
        self.part, self.layout = part, layout
        self.number = 0
        self._start()

    def _start(self) -> None:
        self.size = self.layout.empty_size
        self.records: list[tuple[int, int]] = []
        self.images: list[tuple[str, int, int]] = []

    def add(self, record: tuple[int, int], image: tuple[str, int, int], sample_size: int) -> ShardJob | None:
        """Take a sample; gives the shard before it if that is full."""
        full = None
        if self.records and self.size + sample_size + BYTES_PER_OFFSET > self.layout.size_limit:
            full = self.cut()
        self.records.append(record)
        self.images.append(image)
        self.size += sample_size + BYTES_PER_OFFSET
        return full

    def cut(self) -> ShardJob | None:
        """The shard of what was collected, if anything was."""
        if not self.records:
            return None
        job = ShardJob(self.part, self.number, self.records, self.images)
        self.number += 1
        self._start()
        return job


def plan_shards(
    blocks: Iterable[Block],
    images: ImageTable,
    layout: ShardFormat,
    holdout: float,
    limit: int | None,
    skip: np.ndarray = NOTHING,
) -> Iterator[ShardJob]:
    """Shards over the entries whose image is in ``images``, in the order of the entries.

    Sizes come from the scan, not from reading the files, so that a shard is a job of its own; an
    image that turns out to be bad just makes its shard smaller.

    Args:
        blocks: the entries, taken to their end even when ``limit`` is reached.
        images: images to convert.
        layout: the shards' format.
        holdout: share of ids that goes to the evaluation part.
        limit: most samples to plan, over both parts; None: all.
        skip: (m,) uint64, sorted keys of samples that are not to be written, although their image is among these.
    """
    cutters = {part: ShardCutter(part, layout) for part in PARTS}
    threshold = held_out_below(holdout)
    left = sys.maxsize if limit is None else limit
    for block in blocks:
        rows, there = positions(images.keys, block.images)
        there &= ~positions(skip, block.keys)[1]
        found = np.flatnonzero(there)[:left]
        left -= len(found)
        for place in found:
            row, length = int(rows[place]), int(block.lengths[place])
            size = int(images.sizes[row])
            part = EVALUATION if int(block.keys[place]) < threshold else TRAIN
            job = cutters[part].add(
                (int(block.offsets[place]), length),
                (images.path(row), size, int(images.mtimes[row])),
                layout.sample_size(length, size),
            )
            if job is not None:
                yield job
    for cutter in cutters.values():
        job = cutter.cut()
        if job is not None:
            yield job
