"""How often a node fetches shards in a pass whose shards do not all fit its cache: the order, played through."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from theworld.data.batches.order import Indices
from theworld.data.cache.snapshot import Snapshot
from theworld.data.cache.space import in_megabytes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetches:
    """What a node fetches."""

    shards: int
    """Different shards that it needs."""
    fetched: int
    """Times that one is fetched."""
    bytes: int
    """All of them together."""


@dataclass(frozen=True)
class NodeShare:
    """Which slots of each batch a node's ranks read."""

    global_batch_size: int
    """Must divide by the nodes."""
    node: int = 0
    nodes: int = 1
    """With equally many ranks each."""


def shards_of_node(order: Indices, shard_sizes: Sequence[int], share: NodeShare) -> Indices:
    """The shards of a node's samples, in the order in which its ranks need them.

    Args:
        order: sample indices, from the first that is to be read.
        shard_sizes: samples of each shard.
        share: of the node.
    """
    shards = np.searchsorted(np.cumsum(np.asarray(shard_sizes, np.int64)), order, side="right")
    slots = np.arange(len(shards)) % share.global_batch_size
    return shards[slots * share.nodes // share.global_batch_size == share.node]


def count_fetches(shards: Indices, shard_bytes: Sequence[int], capacity: int) -> Fetches:
    """Play a node's reading through, with a cache that is empty at first and drops what was fetched longest ago.

    Args:
        shards: as :func:`shards_of_node` gives them.
        shard_bytes: size of each shard.
        capacity: bytes that the cache holds.
    """
    held: deque[int] = deque()
    present = np.zeros(len(shard_bytes), bool)
    free, fetched, total = capacity, 0, 0
    # Of samples in a row of one shard only the first may fetch it.
    changes = np.concatenate([[True], shards[1:] != shards[:-1]]) if len(shards) else np.zeros(0, bool)
    for shard in shards[changes].tolist():
        if present[shard]:
            continue
        size = shard_bytes[shard]
        while free < size and held:
            oldest = held.popleft()
            present[oldest] = False
            free += shard_bytes[oldest]
        held.append(shard)
        present[shard] = True
        free -= size
        fetched += 1
        total += size
    return Fetches(len(np.unique(shards)), fetched, total)


def warn_of_fetches(order: Indices, snapshot: Snapshot, share: NodeShare, capacity: int) -> None:
    """Say how often a node will fetch its shards, if that is more than once.

    Args:
        order: sample indices, from the first that is to be read.
        snapshot: of the data set.
        share: of the node.
        capacity: bytes that its cache holds.
    """
    found = count_fetches(shards_of_node(order, snapshot.shard_sizes, share), snapshot.shard_bytes, capacity)
    if found.fetched > found.shards:
        log.warning(
            "the cache of shards holds %s, less than what is read side by side: the %d shards of this node will be "
            "fetched %.1f times each, %s in all; set TMPDIR or train_loader.dataset.local to a larger disk, or a "
            "smaller train_loader.dataset.shuffle_block_size for the next pass",
            *(in_megabytes(capacity), found.shards, found.fetched / found.shards, in_megabytes(found.bytes)),
        )
