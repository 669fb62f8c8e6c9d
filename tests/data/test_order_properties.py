"""Exactly once over whatever may happen to a pass: growth, other batch sizes and ranks, stops, lost steps."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from theworld.data.batches.order import BLOCKS, WINDOW, Indices, Shuffle, Stage, pass_order, rank_batch, slide

BATCHES = [1, 2, 4, 6, 8, 12, 24]


@dataclass
class Walk:
    """A pass that is gone through as a run does: some batches, then a stop or a save with something new."""

    shards: list[int]
    shuffle: Shuffle
    batch: int
    known: int
    stages: list[Stage] = field(default_factory=list)
    position: int = 0
    given: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stages.append(Stage(0, self.samples, self.batch))

    @property
    def samples(self) -> int:
        return sum(self.shards[: self.known])

    def order(self) -> Indices:
        """As a resume computes it, from what a checkpoint holds; it may see shards that the stage did not know."""
        stages = [Stage.from_state(json.loads(json.dumps(stage.state_dict()))) for stage in self.stages]
        shuffle = Shuffle.from_state(json.loads(json.dumps(self.shuffle.state_dict())), self.shuffle.epoch)
        return pass_order(stages, self.shards[: self.known], shuffle)

    def go_on(self, batches: int, ranks: int) -> None:
        order = self.order()
        assert order[: self.position].tolist() == self.given, "what was given has changed"
        for _ in range(batches):
            if len(order) - self.position < self.batch:
                return
            for rank in range(ranks):
                self.given += [slot.index for slot in rank_batch(order, self.position, self.batch, rank, ranks)]
            self.position += self.batch

    def change(self, more_shards: int, batch: int) -> None:
        self.known = min(self.known + more_shards, len(self.shards))
        if self.samples != self.stages[-1].samples or batch != self.batch:
            self.batch = batch
            self.stages.append(Stage(self.position, self.samples, batch))


SHUFFLES = st.builds(
    Shuffle,
    enabled=st.sampled_from([True, True, True, False]),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 2),
    num_canonical_nodes=st.integers(1, 16),
    block_size=st.sampled_from([1, 7, 64, 4096]),
    mixing=st.sampled_from([WINDOW, WINDOW, BLOCKS]),
)
EVENTS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([1, 2, 3, 4]), st.integers(0, 5), st.sampled_from(BATCHES)), max_size=8
)


@settings(max_examples=150, deadline=None)
@given(shards=st.lists(st.integers(1, 40), min_size=1, max_size=30), shuffle=SHUFFLES, events=EVENTS, first=st.data())
def test_every_sample_once_whatever_happens(
    shards: list[int], shuffle: Shuffle, events: list[tuple[int, int, int, int]], first: st.DataObject
) -> None:
    known = first.draw(st.integers(1, len(shards)))
    walk = Walk(shards, shuffle, first.draw(st.sampled_from(BATCHES)), known)
    for batches, ranks, more_shards, batch in events:
        walk.go_on(batches, ranks if walk.batch % ranks == 0 else 1)
        walk.change(more_shards, batch)
    order = walk.order()
    assert order[: walk.position].tolist() == walk.given
    assert np.bincount(order, minlength=walk.samples).tolist() == [1] * walk.samples


@settings(max_examples=100, deadline=None)
@given(length=st.integers(0, 3000), block_size=st.integers(1, 500), seed=st.integers(0, 1000))
def test_no_sample_leaves_the_window(length: int, block_size: int, seed: int) -> None:
    mixed = slide(np.arange(length), block_size, np.random.default_rng(seed))
    assert sorted(mixed) == list(range(length))
    assert (np.abs(mixed - np.arange(length)) < max(block_size, 1)).all()


@settings(max_examples=60, deadline=None)
@given(
    shards=st.integers(20, 120), size=st.integers(5, 60), parts=st.sampled_from([1, 2, 4]), block=st.integers(1, 300)
)
def test_the_shards_that_are_open_are_those_of_the_window(shards: int, size: int, parts: int, block: int) -> None:
    """Whatever the sizes: what a pass has begun and not ended at any moment."""
    total, batch = shards * size, 4
    order = pass_order([Stage(0, total, batch)], [size] * shards, Shuffle(True, 0, 0, parts, block))
    filled = order[: total // batch * batch] // size
    first = {shard: place for place, shard in reversed(list(enumerate(filled.tolist())))}
    last = {shard: place for place, shard in enumerate(filled.tolist())}
    changes = np.zeros(len(filled) + 1, np.int64)
    np.add.at(changes, list(first.values()), 1)
    np.add.at(changes, [place + 1 for place in last.values()], -1)
    # What has been begun lies before the place of the window, what is not ended within a block of it.
    assert changes.cumsum().max() <= parts * (block / size + 3)


@settings(max_examples=60, deadline=None)
@given(done=st.integers(0, 30), new=st.integers(8, 40), seed=st.integers(0, 100))
def test_growth_does_not_come_last(done: int, new: int, seed: int) -> None:
    """Of the half of the batches that come first after a growth, some hold new samples and some old ones."""
    stages = [Stage(0, 800, 8), Stage(done * 8, 800 + new * 20, 8)]
    order = pass_order(stages, [20] * (40 + new), Shuffle(True, seed, 0, 4, block_size=64))
    rest = order[done * 8 :]
    half = rest[: len(rest) // 2]
    assert (half < 800).any()
    assert (half >= 800).any()
