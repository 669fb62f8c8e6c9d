"""One pass against the data sets as they are today: what was seen as often as it was due, more often, less often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theworld.audit.claim import PassClaim, Sum
from theworld.audit.count import Keys
from theworld.audit.data_set import WHOLE, KnownGeneration
from theworld.audit.due import Counts
from theworld.audit.report import PassReport


@dataclass(frozen=True)
class Seen:
    """What the ledger has of a pass."""

    ids: Keys
    """That were trained on or could not be, ascending, each once."""
    times: Counts
    """How often each of them."""
    lost: Keys
    """Ids of steps that were lost."""


@dataclass(frozen=True)
class Owed:
    """What a pass owes of one generation."""

    generation: KnownGeneration
    due: Counts
    """How often each of its samples, in their order."""

    def got(self, seen: Seen) -> Counts:
        """How often each of its samples was seen."""
        if not len(seen.ids):
            return np.zeros(len(self.due), np.int64)
        place = np.minimum(np.searchsorted(seen.ids, self.generation.keys), len(seen.ids) - 1)
        return np.where(seen.ids[place] == self.generation.keys, seen.times[place], 0)


def owed_by(claim: PassClaim, known: list[KnownGeneration], is_newest: bool) -> tuple[list[Owed], int]:
    """What a pass owes, and how many samples there are that it, having ended, never had.

    Args:
        claim: of the pass.
        known: the generations that there are today.
        is_newest: whether no pass has begun since.
    """
    if claim.sources:
        return owed_by_mixture(claim, known, is_newest)
    members = known
    if claim.ended and list(claim.generations) != [WHOLE]:
        by_name = {one.source.name: one for one in known}
        members = [by_name[name] for name in claim.generations if name in by_name]
    later = sum(one.sum.count for one in known if one not in members) if claim.ended and is_newest else 0
    return [Owed(one, np.ones(len(one.keys), np.int64)) for one in members], later


def owed_by_mixture(claim: PassClaim, known: list[KnownGeneration], is_newest: bool) -> tuple[list[Owed], int]:
    owed, later = [], 0
    for source in claim.sources:
        members = [one for one in known if one.data_set == source.name]
        now = sum(one.sum.count for one in members)
        due, first = source.due(None if claim.ended else now), 0
        for one in members:
            of_it = due[first : first + len(one.keys)]
            first += len(one.keys)
            if len(of_it):
                owed.append(Owed(one, np.pad(of_it, (0, len(one.keys) - len(of_it)))))
        later += max(0, now - len(due)) if source.grows and claim.ended and is_newest else 0
    return owed, later


def compare(report: PassReport, claim: PassClaim, seen: Seen, known: list[KnownGeneration], is_newest: bool) -> None:
    """Hold a pass against the data set as it is today; fills in the report.

    Args:
        report: to be filled in.
        claim: of the pass.
        seen: in it.
        known: the generations that there are today.
        is_newest: whether no pass has begun since.
    """
    by_name = {one.source.name: one for one in known}
    gone = missing_sources(claim, known)
    if gone:
        report.unproven.append(
            f"it had samples of {', '.join(gone)}, which config.yaml does not name: what of those is due is not known"
        )
        return
    owed, report.added_since = owed_by(claim, known, is_newest)
    report.faults += changed_generations(claim, by_name)
    everything = np.concatenate([one.keys for one in known]) if known else np.zeros(0, np.uint64)
    report.unknown = int((~np.isin(seen.ids, everything)).sum())
    if claim.sources:
        report.repeated_keys = excess(seen, owed, everything)
        report.repeated = len(report.repeated_keys)
    if claim.parent is not None:
        report.whole = compare_with_parent(report, claim, owed)
        return
    if claim.sources:
        count_against_due(report, seen, owed)
    for one in owed:
        missing = np.maximum(one.due - one.got(seen), 0)
        unseen = int(missing.sum())
        report.per_generation[one.generation.source.name] = [int(one.due.sum()) - unseen, unseen]
        report.never_seen += unseen
        keys = one.generation.keys[missing > 0]
        report.never_seen_keys.append(keys[~np.isin(keys, seen.lost)])
    report.never_seen -= min(report.lost, report.never_seen)
    report.whole = not (report.never_seen or report.lost or report.added_since or report.unknown)


def missing_sources(claim: PassClaim, known: list[KnownGeneration]) -> list[str]:
    """The data sets of a pass that are not among those that the run has today."""
    today = {one.data_set for one in known}
    if claim.sources:
        return sorted({one.name for one in claim.sources} - today)
    return ["a single data set"] if today and "" not in today else []


def count_against_due(report: PassReport, seen: Seen, owed: list[Owed]) -> None:
    """By source: samples, copies that are due, and those that were seen."""
    report.seen_once = 0
    for one in owed:
        got = one.got(seen)
        report.seen_once += int(((got == one.due) & (one.due > 0)).sum())
        figures = report.sources.setdefault(one.generation.data_set, {"samples": 0, "due": 0, "seen": 0})
        figures["samples"] += int((one.due > 0).sum())
        figures["due"] += int(one.due.sum())
        figures["seen"] += int(got.sum())


def excess(seen: Seen, owed: list[Owed], everything: Keys) -> Keys:
    """Ids of the data sets that were seen more often than they are due, if they are at all."""
    due = np.zeros(len(seen.ids), np.int64)
    for one in owed:
        both = np.intersect1d(seen.ids, one.generation.keys, assume_unique=True, return_indices=True)
        places, members = both[1:]
        due[places] = one.due[members]
    return seen.ids[(seen.times > due) & np.isin(seen.ids, everything)]


def compare_with_parent(report: PassReport, claim: PassClaim, owed: list[Owed]) -> bool | None:
    """Whether a pass that began in another run's ledger has seen everything; only sums are known of that part."""
    if claim.ids is None or claim.parent is None or claim.parent.ids is None:
        return None
    seen = claim.ids["trained"] + claim.ids["skipped"]
    expected = sum((one.generation.sum_of(one.due) if claim.sources else one.generation.sum for one in owed), Sum())
    report.never_seen = max(0, expected.count - seen.count)
    if report.ended and report.never_seen == 0 and seen != expected:
        report.faults.append("the samples of parent and run together are not those of the data set")
    return seen == expected and not report.added_since


def changed_generations(claim: PassClaim, by_name: dict[str, KnownGeneration]) -> list[str]:
    """Generations that the pass knew and that are gone, or not the same today."""
    faults = []
    for name, fingerprint in claim.generations.items():
        if name.rpartition("/")[2] == WHOLE:
            continue
        now = by_name.get(name)
        if now is None:
            faults.append(f"{name}, which the pass had, is not in the data set")
        elif None not in (fingerprint, now.source.fingerprint) and fingerprint != now.source.fingerprint:
            faults.append(f"{name} is not what it was when the pass had it (fingerprint)")
    return faults
