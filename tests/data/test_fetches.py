"""The cache played through: what a node fetches."""

import numpy as np

from theworld.data.batches.fetches import Fetches, NodeShare, count_fetches, shards_of_node


def test_a_node_needs_the_shards_of_its_slots() -> None:
    order = np.array([0, 5, 10, 1, 6, 11, 2, 7])
    sizes = [5, 5, 5]
    assert shards_of_node(order, sizes, NodeShare(4)).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert shards_of_node(order, sizes, NodeShare(4, 0, 2)).tolist() == [0, 1, 1, 2]
    assert shards_of_node(order, sizes, NodeShare(4, 1, 2)).tolist() == [2, 0, 0, 1]


def test_what_was_fetched_longest_ago_goes_and_is_fetched_again() -> None:
    shards = np.array([0, 0, 1, 0, 2, 1, 0])
    assert count_fetches(shards, [10, 10, 10], capacity=30) == Fetches(3, 3, 30)
    # With room for two, 2 drives out 0, which comes back for 1.
    assert count_fetches(shards, [10, 10, 10], capacity=20) == Fetches(3, 4, 40)
    assert count_fetches(shards, [10, 10, 10], capacity=10) == Fetches(3, 6, 60)
    assert count_fetches(shards[:0], [10], capacity=10) == Fetches(0, 0, 0)
