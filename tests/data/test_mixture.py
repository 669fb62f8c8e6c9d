"""What a pass takes of the data sets that it mixes: counts, turns, and every copy exactly once whatever happens.

How often a sample is due is checked against the audit's own arithmetic, which shares no code with the trainer's.
"""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theworld.audit.due import parse_mix
from theworld.data.batches.expectation import Expectation
from theworld.data.batches.mixture import (
    CHOOSE,
    PROPORTION,
    REPEAT,
    Copies,
    PassMix,
    Share,
    copies_at,
    keys_of,
    largest_remainders,
    portions,
)
from theworld.data.batches.order import Shuffle, Stage, pass_order, rank_batch
from theworld.data.cache.snapshot import Generation, Snapshot
from theworld.errors import UserError


def counts_of(mix: PassMix, sizes: list[list[int]]) -> list[list[int]]:
    """How often each sample of each source is in the pass."""
    copies = Copies.of(mix, sizes)
    return [
        np.bincount(copies.sample[copies.source == source], minlength=mix.known[-1][source]).tolist()
        for source in range(len(mix.portions))
    ]


def begin(shares: list[Share], samples: list[int], after: dict[str, int] | None = None) -> PassMix:
    return PassMix.begin(portions(shares, samples, after or {}, seed=17))


def test_repeat_gives_whole_copies_and_a_rounded_number_of_extras() -> None:
    mix = begin([Share("a"), Share("b", REPEAT, 2.5), Share("c", REPEAT, 0.3)], [4, 7, 10])
    a, b, c = counts_of(mix, [[4], [3, 4], [10]])
    assert a == [1] * 4
    assert sorted(b) == [2] * 3 + [3] * 4, "2.5 x 7 is 17.5, a half up: 18"
    assert sorted(c) == [0] * 7 + [1] * 3


def test_choose_gives_the_number_whatever_the_data_set_has() -> None:
    mix = begin([Share("a", CHOOSE, 10), Share("b", CHOOSE, 3)], [4, 7])
    a, b = counts_of(mix, [[2, 2], [7]])
    assert sorted(a) == [2, 2, 3, 3]
    assert sorted(b) == [0, 0, 0, 0, 1, 1, 1]


def test_proportions_fill_a_pass_as_long_as_all_together() -> None:
    shares = [Share("a", PROPORTION, 1), Share("b", PROPORTION, 1), Share("c", PROPORTION, 1)]
    mix = begin(shares, [50, 40, 10])
    assert [sum(one) for one in counts_of(mix, [[50], [40], [10]])] == [34, 33, 33], "the first of equals gets the rest"
    assert copies_at(mix, [50, 40, 10]) == 100
    assert largest_remainders([Fraction("0.1"), Fraction("0.2"), Fraction("0.7")], 10) == [1, 2, 7]
    assert largest_remainders([Fraction(5), Fraction(3), Fraction(1)], 10) == [6, 3, 1]


def test_a_source_without_any_copy_is_refused() -> None:
    with pytest.raises(UserError, match=r"train_loader\.datasets: b: proportion 1e-06 of its 7 samples is not one"):
        begin([Share("a", PROPORTION, 1), Share("b", PROPORTION, 1e-6)], [4, 7])


def test_no_two_samples_of_a_source_have_a_key_in_common() -> None:
    portion = portions([Share("a", CHOOSE, 1)], [200_000], {}, seed=3)[0]
    assert len(np.unique(keys_of(portion, 0, 200_000))) == 200_000


def test_the_keys_are_what_they_were() -> None:
    """A pass that was begun with one release goes on with the next: its extras must stay the same."""
    portion = portions([Share("regions", CHOOSE, 1)], [3], {}, seed=17)[0]
    assert keys_of(portion, 0, 3).tolist() == [16741233563579183405, 16359767089991238034, 8867388438095797480]


@settings(max_examples=100, deadline=None)
@given(
    samples=st.integers(1, 60),
    quota=st.integers(1, 150),
    passes=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_over_the_passes_no_sample_is_ahead_by_more_than_one(samples: int, quota: int, passes: int, seed: int) -> None:
    total, after = np.zeros(samples, np.int64), {}
    for _ in range(passes):
        mix = PassMix.begin(portions([Share("a", CHOOSE, quota)], [samples], after, seed))
        total += counts_of(mix, [[samples]])[0]
        after = json.loads(json.dumps(mix.following()))
    assert total.sum() == quota * passes
    assert total.max() - total.min() <= 1


SHARES = st.one_of(
    st.lists(st.builds(Share, st.just(""), st.just(REPEAT), st.sampled_from([0.5, 1, 1.25, 2, 2.7, 3])), min_size=1),
    st.lists(st.builds(Share, st.just(""), st.just(CHOOSE), st.integers(1, 70)), min_size=1),
    st.lists(st.builds(Share, st.just(""), st.just(PROPORTION), st.sampled_from([1, 2, 2.5, 3])), min_size=1),
).map(lambda shares: [Share(f"s{place}", one.rule, one.value) for place, one in enumerate(shares[:4])])
EVENTS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 3), st.sampled_from([1, 2, 4, 6, 8])), max_size=6
)


@settings(max_examples=200, deadline=None)
@given(shares=SHARES, events=EVENTS, chance=st.data())
def test_every_copy_once_whatever_happens(
    shares: list[Share], events: list[tuple[int, int, int, int]], chance: st.DataObject
) -> None:
    """Growth of any source, other batch sizes, resumes: what was given stays, and each sample comes as often as due."""
    sizes = [[chance.draw(st.integers(4, 20))] for _ in shares]
    after = {"s0": chance.draw(st.sampled_from([-1, 0, 2**63, 2**64 - 1]))}
    if chance.draw(st.booleans()):  # as after a pass: the key is a sample's own, whose turn is the last
        after = PassMix.begin(portions(shares, [sum(one) for one in sizes], after, seed=5)).following()
    mix = PassMix.begin(portions(shares, [sum(one) for one in sizes], after, seed=5))
    batch = 4
    shuffle = Shuffle(chance.draw(st.booleans()), 5, 0, chance.draw(st.integers(1, 4)), block_size=16)
    stages = [Stage(0, copies_at(mix, mix.known[-1]), batch)]
    position, given_so_far = 0, []
    for batches, source, more, wanted in events:
        mix = PassMix.from_state(json.loads(json.dumps(mix.state_dict())))
        copies = Copies.of(mix, sizes)
        assert copies.ends == [stage.samples for stage in stages]
        order = pass_order(stages, copies.runs, shuffle)
        assert order[:position].tolist() == given_so_far, "what was given has changed"
        for _ in range(batches):
            if len(order) - position >= batch:
                given_so_far += [slot.index for slot in rank_batch(order, position, batch, 0, 1)]
                position += batch
        sizes[source % len(sizes)] += [3] * more
        grown = mix.grown([sum(one) for one in sizes])
        if grown != mix.known[-1] or wanted != batch:
            batch, mix = wanted, mix.next_stage(grown)
            stages.append(Stage(position, copies_at(mix, grown), batch))
    copies = Copies.of(mix, sizes)
    order = pass_order(stages, copies.runs, shuffle)
    assert sorted(order.tolist()) == list(range(stages[-1].samples)), "each copy once"
    times = Counter(zip(copies.source[order].tolist(), copies.sample[order].tolist(), strict=True))
    due = {
        (place, sample): int(count)
        for place, claim in enumerate(parse_mix(mix.state_dict()))
        for sample, count in enumerate(claim.due())
        if count
    }
    assert times == due, "what the audit holds the pass against"
    numbers = Counter(zip(copies.source.tolist(), copies.sample.tolist(), copies.copy.tolist(), strict=True))
    assert set(numbers.values()) == {1}, "the copies of a sample have numbers of their own"


def test_the_copies_of_a_sample_lie_in_runs_of_their_own() -> None:
    """So that chance puts them apart, not into the same batch as neighbours would be."""
    mix = begin([Share("a", REPEAT, 2)], [1000])
    copies = Copies.of(mix, [[100] * 10])
    assert copies.runs == [100] * 20
    order = pass_order([Stage(0, 2000, 10)], copies.runs, Shuffle(True, 1, 0, 1, block_size=100))
    batches = copies.sample[order].reshape(-1, 10)
    twice = sum(len(set(batch.tolist())) < 10 for batch in batches)
    assert twice < 50, f"{twice} of 200 batches have a sample twice"


def test_what_a_pass_is_to_have_is_told_in_copies() -> None:
    def snapshot(name: str, samples: int, promised: int | None) -> Snapshot:
        return Snapshot(name, (Generation("gen-00000", samples, 1, "f"),), (), json_samples=promised)

    repeated = begin([Share("a", REPEAT, 1.5), Share("b")], [10, 4])
    arriving = [snapshot("a", 10, 25), snapshot("b", 4, 3)]
    auto = Expectation("auto")
    assert auto.copies(arriving, repeated) == 38 + 4, "1.5 x 25, a half up; what is there beyond the JSON counts"
    chosen = begin([Share("a", CHOOSE, 7), Share("b", CHOOSE, 9)], [10, 4])
    assert auto.copies(arriving, chosen) == 16, "those that come later are for the next pass"
    assert Expectation(None).copies(arriving, repeated) is None
    with pytest.raises(UserError, match="auto, but b does not say how many samples"):
        auto.copies([arriving[0], snapshot("b", 4, None)], repeated)
