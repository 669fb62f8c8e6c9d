"""The audit's own counting of passes that mix data sets: what a trainer that counts wrongly could make of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from theworld.audit.claim import Parent, PassClaim, Sum
from theworld.audit.compare import Seen, compare
from theworld.audit.count import Tally, hash_id, key_of
from theworld.audit.data_set import GenerationIds, KnownGeneration
from theworld.audit.due import SourceClaim
from theworld.audit.report import PassReport

A = SourceClaim("a", 6, 1, 2, -1, 17, "1/3", (6,))
B = SourceClaim("b", 4, 0, 3, 2**63, 17, None, (4,))


def known(sizes: dict[str, list[int]]) -> list[KnownGeneration]:
    """Generations of data sets; ids are ``a/0``, ``a/1``, ... on through a data set's generations."""
    found = []
    for name, counts in sizes.items():
        first = 0
        for number, count in enumerate(counts):
            ids = [f"{name}/{one}" for one in range(first, first + count)]
            source = GenerationIds(f"{name}/gen-{number:05d}", "f", partial(list, ids))
            found.append(KnownGeneration.read(source))
            first += count
    return found


def claim(*sources: SourceClaim, ended: bool = True) -> PassClaim:
    generations: dict[str, str | None] = {f"{one.name}/gen-00000": "f" for one in sources}
    return PassClaim(0, ended, [], None, generations, sources=list(sources))


def due(*sources: SourceClaim) -> Counter[str]:
    pairs = {f"{one.name}/{place}": int(times) for one in sources for place, times in enumerate(one.due())}
    return Counter({name: times for name, times in pairs.items() if times})


def judge(one: PassClaim, times: Counter[str], data_sets: list[KnownGeneration], newest: bool = True) -> PassReport:
    keys = np.asarray(sorted(key_of(hash_id(name)) for name in times.elements()), np.uint64)
    ids, counts = np.unique(keys, return_counts=True)
    report = PassReport(0, one.ended, 1)
    compare(report, one, Seen(ids, counts, ids[:0]), data_sets, newest)
    return report


def test_as_it_is_due() -> None:
    assert sorted(A.due().tolist()) == [1, 1, 1, 1, 2, 2]
    assert sorted(B.due().tolist()) == [0, 1, 1, 1]
    report = judge(claim(A, B), due(A, B), known({"a": [6], "b": [4]}))
    assert (report.whole, report.repeated, report.never_seen, report.unknown) == (True, 0, 0, 0)
    assert report.seen_once == 9
    assert report.sources == {"a": {"samples": 6, "due": 8, "seen": 8}, "b": {"samples": 3, "due": 3, "seen": 3}}


def test_a_copy_too_many_and_one_too_few_are_told_apart() -> None:
    times = due(A, B)
    twice = next(name for name, count in times.items() if count == 2)
    once = next(name for name, count in times.items() if count == 1 and name.startswith("a/"))
    times[twice] -= 1
    times[once] += 1
    report = judge(claim(A, B), times, known({"a": [6], "b": [4]}))
    assert (report.whole, report.repeated, report.never_seen) == (False, 1, 1)
    assert report.repeated_keys.tolist() == [key_of(hash_id(once))]
    assert report.never_seen_keys[0].tolist() == [key_of(hash_id(twice))]


def test_a_sample_that_is_not_due_at_all_counts_as_repeated() -> None:
    times = due(A, B)
    left_out = next(f"b/{one}" for one in range(4) if f"b/{one}" not in times)
    times[left_out] = 1
    report = judge(claim(A, B), times, known({"a": [6], "b": [4]}))
    assert (report.repeated, report.unknown) == (1, 0)
    times["b/77"] = 1
    report = judge(claim(A, B), times, known({"a": [6], "b": [4]}))
    assert (report.repeated, report.unknown) == (1, 1), "what is unknown is not counted twice"


def test_the_extras_follow_the_key_that_the_pass_says() -> None:
    for after in (-1, 0, 2**62, 2**63, 2**64 - 1):
        other = replace(B, after=after)
        assert sum(other.due()) == 3
    assert len({tuple(replace(B, after=after).due()) for after in range(0, 2**64, 2**60)}) == 4, "each is left out once"


def test_what_came_later_joins_a_repeat_and_waits_with_a_quota() -> None:
    grown = replace(A, known=(6, 9))
    assert sum(grown.due()) == 12
    data_sets = known({"a": [6, 3], "b": [4, 5]})
    assert judge(claim(grown, B), due(grown, B), data_sets).whole is True
    report = judge(claim(A, B), due(A, B), data_sets)
    assert (report.whole, report.added_since) == (False, 3), "those of b are for the next pass"
    assert judge(claim(A, B), due(A, B), data_sets, newest=False).added_since == 0
    report = judge(claim(A, B, ended=False), due(A, B), data_sets)
    assert report.never_seen == 4, "the pass that goes on will take 3 more of a, one of them twice"


def test_a_pass_that_began_elsewhere_is_held_against_the_sums() -> None:
    data_sets = known({"a": [6], "b": [4]})
    tally = Tally()
    for name in due(A, B).elements():
        tally.add(name)
    mixed = claim(A, B)
    zero = {"trained": Sum(), "skipped": Sum(), "lost": Sum()}
    mixed = replace(mixed, parent=Parent("there", 3, zero), ids={**zero, "trained": tally.sum})
    assert judge(mixed, Counter(), data_sets).whole is True
    wrong = replace(mixed, ids={**zero, "trained": tally.sum + Sum(0, 1)})
    assert judge(wrong, Counter(), data_sets).faults == [
        "the samples of parent and run together are not those of the data set"
    ]


@pytest.mark.parametrize("sources", [(), (A,)])
def test_data_sets_that_the_run_has_no_more_leave_it_unproven(sources: tuple[SourceClaim, ...]) -> None:
    one = claim(*sources) if sources else replace(claim(), generations={"gen-00000": "f"})
    report = judge(one, Counter(), known({"c": [3]}))
    assert report.whole is None
    assert len(report.unproven) == 1
    assert ("a single data set" if not sources else "samples of a,") in report.unproven[0]
