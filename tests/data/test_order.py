"""The order of a pass: exactly once, whatever the ranks, however the data grows."""

import hashlib

import numpy as np
import pytest

from theworld.data.batches.order import Shuffle, Stage, pass_order, rank_batch, slide

SHARDS = [7, 13, 1, 20, 9, 50, 4, 30]
TOTAL = sum(SHARDS)


def shuffle(seed: int = 3, epoch: int = 0, enabled: bool = True) -> Shuffle:
    return Shuffle(enabled, seed, epoch, num_canonical_nodes=4)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("batch", [1, 6, 8, 64, 1000])
def test_every_sample_once(enabled: bool, batch: int) -> None:
    order = pass_order([Stage(0, TOTAL, batch)], SHARDS, shuffle(enabled=enabled))
    assert sorted(order) == list(range(TOTAL))


def test_growth_keeps_what_was_consumed_and_takes_up_the_rest_once() -> None:
    first = [Stage(0, 41, 8)]
    second = [*first, Stage(24, 100, 8)]
    third = [*second, Stage(72, TOTAL, 4)]
    orders = [pass_order(stages, SHARDS, shuffle()) for stages in (first, second, third)]
    assert (orders[0][:24] == orders[1][:24]).all()
    assert (orders[1][:72] == orders[2][:72]).all()
    assert sorted(orders[1]) == list(range(100))
    assert sorted(orders[2]) == list(range(TOTAL))


def test_samples_of_lost_steps_are_given_once_more_and_then_growth_goes_on() -> None:
    first = [Stage(0, 40, 8)]
    again = [*first, Stage(40, 40, 8, again=((0, 8), (16, 24)))]
    grown = [*again, Stage(48, TOTAL, 8)]
    orders = [pass_order(stages, SHARDS, shuffle()) for stages in (first, again, grown)]
    lost = [*orders[0][0:8], *orders[0][16:24]]
    assert (orders[1][:40] == orders[0]).all()
    assert sorted(orders[1][40:]) == sorted(lost)
    assert (orders[2][:48] == orders[1][:48]).all()
    assert sorted(orders[2]) == sorted([*range(TOTAL), *lost])


def test_growth_does_not_change_with_shards_not_yet_known() -> None:
    """A resume sees a longer index than the run that was killed; what the older stages fix must not move."""
    stages = [Stage(0, 41, 8)]
    before = pass_order(stages, SHARDS[:4], shuffle())
    after = pass_order([*stages, Stage(16, TOTAL, 8)], SHARDS, shuffle())
    assert (before[:16] == after[:16]).all()


def test_new_and_old_samples_are_mixed() -> None:
    order = pass_order([Stage(0, 41, 8), Stage(8, TOTAL, 8)], SHARDS, shuffle())
    rest = order[8:]
    assert (rest[:40] < 41).any()
    assert (rest[:40] >= 41).any()


def test_epochs_and_seeds_differ_and_repeat() -> None:
    stages = [Stage(0, TOTAL, 8)]
    base = pass_order(stages, SHARDS, shuffle())
    assert (base == pass_order(stages, SHARDS, shuffle())).all()
    assert (base != pass_order(stages, SHARDS, shuffle(epoch=1))).any()
    assert (base != pass_order(stages, SHARDS, shuffle(seed=4))).any()


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_a_batch_without_changing_it(ranks: int) -> None:
    order = pass_order([Stage(0, TOTAL, 8)], SHARDS, shuffle())
    for position in range(0, TOTAL, 8):
        slots = [slot for rank in range(ranks) for slot in rank_batch(order, position, 8, rank, ranks)]
        assert len(slots) == 8
        real = [slot.index for slot in slots if not slot.is_padding]
        assert real == list(order[position : position + 8])
        fillers = [slot.index for slot in slots if slot.is_padding]
        assert set(fillers) <= set(real)
    assert fillers, "the last batch is short and must have been filled up"


FULL_SIZE = 909_419
FULL_SHARDS = [200] * (FULL_SIZE // 200) + [FULL_SIZE % 200]


def test_few_shards_are_open_at_a_time_and_few_are_opened_in_a_batch_at_full_size() -> None:
    order = pass_order([Stage(0, FULL_SIZE, 256)], FULL_SHARDS, Shuffle(True, 1, 0, num_canonical_nodes=8))
    shards, batches = order // 200, np.arange(FULL_SIZE) // 256
    first = np.full(len(FULL_SHARDS), batches[-1])
    last = np.zeros(len(FULL_SHARDS), np.int64)
    np.minimum.at(first, shards, batches)
    np.maximum.at(last, shards, batches)
    opened = np.bincount(first, minlength=batches[-1] + 1)
    left = np.bincount(last + 1, minlength=batches[-1] + 2)[:-1]
    assert (opened - left).cumsum().max() <= 8 * (4096 // 200 + 3)
    assert opened[0] <= 8 * 4, "a pass begins with few shards"
    assert opened[8:].max() <= 7


def test_two_nodes_do_not_need_the_same_shards() -> None:
    order = pass_order([Stage(0, FULL_SIZE, 256)], FULL_SHARDS, Shuffle(True, 1, 0, num_canonical_nodes=8))
    full = order[: FULL_SIZE // 256 * 256].reshape(-1, 2, 128) // 200
    shared = set(full[:, 0].flat) & set(full[:, 1].flat)
    assert len(shared) <= 1, "only the shard that the parts' border cuts"


def test_growth_is_mixed_evenly_from_the_next_batch_on() -> None:
    stages = [Stage(0, 500_000, 256), Stage(256 * 1000, 600_000, 256)]
    order = pass_order(stages, FULL_SHARDS, Shuffle(True, 1, 0, num_canonical_nodes=8))
    new = (order[256 * 1000 : 256 * 1200].reshape(-1, 256) >= 500_000).mean(axis=1)
    share = 100_000 / (600_000 - 256_000)
    assert new.min() > 0
    assert new.max() < 1
    assert abs(new.mean() - share) < 0.05


def test_the_window_is_as_large_as_the_key_says() -> None:
    samples = np.arange(20_000)
    for size in (1, 50, 4096):
        mixed = slide(samples, size, np.random.default_rng(0))
        moved = np.abs(mixed - samples)
        assert moved.max() <= size
        assert size == 1 or moved.max() > size * 0.4
    assert (slide(samples, 1, np.random.default_rng(0)) == samples).all()


def test_a_pass_that_an_earlier_release_began_has_its_order_to_the_end() -> None:
    """The digest was taken from that release."""
    stages = [Stage(0, 30_000, 16), Stage(4_000, 40_000, 16)]
    old = Shuffle.from_state({"enabled": True, "seed": 3, "groups": 4}, epoch=1)
    order = pass_order(stages, [57] * 702, old)
    assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()[:16] == "1d8866138578be34"


def test_stages_that_do_not_follow_are_refused() -> None:
    with pytest.raises(ValueError, match="stage 1"):
        pass_order([Stage(0, 41, 8), Stage(60, TOTAL, 8)], SHARDS, shuffle())
