"""The order in which a pass visits its samples: pure arithmetic, the heart of "exactly once".

A pass is described by its *stages*. A stage says: from this position on, so many samples were known. A run begins
with one stage; each growth of the data set that it takes up adds one. Because generations are only ever appended, the
samples known at a stage are the indices ``0 .. samples - 1``. The order that follows from the stages is fixed by them
and the seed alone, not by the number of ranks, nodes or workers, so that a run may resume on another machine; and the
part before a stage's position is never touched by that stage, so that what was trained on stays what it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

SHUFFLE_BLOCK = 4096
"""Samples of a part among which one is drawn, if nothing else is said: about twenty shards of 200, few enough to be
kept on a node, enough to break up what a shard has in common."""
BLOCKS, WINDOW = 1, 2
"""How a part is mixed: block after block, as passes were that an earlier release began, or in a window that slides."""


@dataclass(frozen=True)
class Stage:
    """What the pass knew from ``position`` on."""

    position: int
    """Samples of the pass already consumed when the stage began."""
    samples: int
    """Samples known: indices 0 .. samples - 1."""
    global_batch_size: int
    again: tuple[tuple[int, int], ...] = ()
    """Positions, first and end, whose samples are given once more: those of steps that were lost."""

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Stage:
        again = tuple((int(first), int(end)) for first, end in state.get("again", ()))
        return cls(int(state["position"]), int(state["samples"]), int(state["global_batch_size"]), again)


@dataclass(frozen=True)
class Shuffle:
    """How a stage's remaining samples are mixed."""

    enabled: bool
    seed: int
    epoch: int
    num_canonical_nodes: int
    """Parts of the data that are read side by side. Each batch takes equally many samples from each, and the same
    slots of every batch come from the same part, so that with up to this many nodes no shard is needed on two."""
    block_size: int = SHUFFLE_BLOCK
    """Samples of a part among which one is drawn."""
    mixing: int = WINDOW

    def settings(self) -> dict[str, Any]:
        """By the names that they have in the YAML's ``train_loader.dataset``."""
        return {
            "shuffle": self.enabled,
            "shuffle_seed": self.seed,
            "num_canonical_nodes": self.num_canonical_nodes,
            "shuffle_block_size": self.block_size,
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "enabled": self.enabled,
            "seed": self.seed,
            "groups": self.num_canonical_nodes,
            "block_size": self.block_size,
            "mixing": self.mixing,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], epoch: int) -> Shuffle:
        """What :meth:`state_dict` gave; a state that does not say how it mixes is of a release that had blocks."""
        return cls(
            bool(state["enabled"]),
            int(state["seed"]),
            epoch,
            int(state["groups"]),
            int(state.get("block_size", SHUFFLE_BLOCK)),
            int(state.get("mixing", BLOCKS)),
        )


def pass_order(stages: Sequence[Stage], shard_sizes: Sequence[int], shuffle: Shuffle) -> Indices:
    """Sample indices in the order of the pass, each known one exactly once, and once more those that a stage repeats.

    Args:
        stages: in order of their positions.
        shard_sizes: samples of each shard, in index order; must reach the last stage's ``samples``.
        shuffle: seed, epoch and part count.

    Returns:
        (samples,) of the last stage, longer by what was given again; the first ``stages[-1].position`` entries do not
        depend on the last stage.
    """
    ends = np.cumsum(np.asarray(shard_sizes, np.int64))
    order = np.empty(0, np.int64)
    known = 0
    for number, stage in enumerate(stages):
        if stage.samples < known or stage.position > len(order):
            raise ValueError(f"stage {number} of the pass does not follow from the one before: {stages}")
        again = [order[first:end] for first, end in stage.again]
        rest = np.concatenate([order[stage.position :], np.arange(known, stage.samples, dtype=np.int64), *again])
        if shuffle.enabled:
            generator = np.random.default_rng([shuffle.seed, shuffle.epoch, number])
            # Only the shards known at the stage may count, else later growth would change an earlier order.
            known_ends = ends[: np.searchsorted(ends, stage.samples) + 1]
            rest = arrange(rest, known_ends, stage.global_batch_size, shuffle, generator)
        else:
            rest = np.sort(rest)
        order = np.concatenate([order[: stage.position], rest])
        known = stage.samples
    return order


def arrange(
    samples: Indices, shard_ends: Indices, batch: int, shuffle: Shuffle, generator: np.random.Generator
) -> Indices:
    """Shuffle so that each batch mixes many shards, yet few shards are open at a time.

    Shards are put in random order and cut into ``num_canonical_nodes`` equal parts; each part is mixed over
    ``block_size`` samples; each batch takes ``batch / num_canonical_nodes`` consecutive samples from every part.
    Samples that do not fill a batch come last.
    """
    num_canonical_nodes = math.gcd(batch, shuffle.num_canonical_nodes)
    mix = shuffle_blocks if shuffle.mixing == BLOCKS else slide
    shards = np.searchsorted(shard_ends, samples, side="right")
    rank_of_shard = generator.permutation(len(shard_ends))
    by_shard = samples[np.lexsort((samples, rank_of_shard[shards]))]
    full_batches = len(by_shard) // batch
    filled, leftover = by_shard[: full_batches * batch], by_shard[full_batches * batch :]
    parts = filled.reshape(num_canonical_nodes, -1)
    mixed = np.stack([mix(part, shuffle.block_size, generator) for part in parts]) if full_batches else parts
    rows = mixed.reshape(num_canonical_nodes, full_batches, batch // num_canonical_nodes).transpose(1, 0, 2).reshape(-1)
    return np.concatenate([rows, generator.permutation(leftover)])


def slide(samples: Indices, block_size: int, generator: np.random.Generator) -> Indices:
    """Samples sorted by their position plus uniform noise of the block's size: a window of so many positions slides
    over the part, and its shards are opened and left one by one, at another moment in each part."""
    noise = generator.random(len(samples)) * block_size
    return samples[np.argsort(np.arange(len(samples)) + noise, kind="stable")]


def shuffle_blocks(samples: Indices, block_size: int, generator: np.random.Generator) -> Indices:
    """Each run of ``block_size`` samples shuffled within itself. All parts change their block in the same batch, which
    opens all shards of the next one; kept for passes that were begun so."""
    starts = range(0, len(samples), block_size)
    return np.concatenate([generator.permutation(samples[start : start + block_size]) for start in starts])


@dataclass(frozen=True)
class Slot:
    """A place in a rank's batch: which sample, and whether it is only padding."""

    index: int
    is_padding: bool


def rank_batch(order: Indices, position: int, global_batch_size: int, rank: int, ranks: int) -> list[Slot]:
    """The rank's share of the global batch that begins at ``position``.

    All ranks get equally many slots. Where the samples run out, the global batch is filled up with samples that it
    already has, marked as padding samples: they carry no loss.
    """
    members = order[position : position + global_batch_size]
    share = global_batch_size // ranks
    slots = range(rank * share, (rank + 1) * share)
    return [Slot(int(members[slot % len(members)]), slot >= len(members)) for slot in slots]
