"""The three verdicts: at most once, complete against the data set, complete against the JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from theworld.audit.claim import KINDS, Claim, PassClaim, Sum, checkpoints, newest_claim
from theworld.audit.count import (
    NAMED,
    Keys,
    LedgerCount,
    PassCount,
    count_ledger,
    hash_id,
    key_of,
    names_of,
    rank_numbers,
)
from theworld.audit.data_set import WHOLE, DataSet, JsonIds, KnownGeneration
from theworld.audit.old_runs import guess_claim, read_records
from theworld.errors import EXIT_BROKEN_PROMISE, EXIT_DONE, EXIT_RUN_AGAIN, UserError

YES, NO, NOT_CHECKED = "yes", "no", "not checked"


@dataclass
class PassReport:
    """What happened in one pass. Names are those of the first faults; counts are of all."""

    number: int
    ended: bool
    batches: int
    seen_once: int = 0
    trained: int = 0
    skipped: int = 0
    lost: int = 0
    """Seen only in steps that were lost because they were not finite."""
    repeated: int = 0
    never_seen: int = 0
    """Of what the pass had; for a pass that goes on, not yet."""
    unknown: int = 0
    """Ids that the data set does not have."""
    added_since: int = 0
    """Samples of generations that the pass, which has ended, never had."""
    per_generation: dict[str, list[int]] = field(default_factory=dict)
    """Seen and not seen, of each generation that the pass had."""
    names: dict[str, list[str]] = field(default_factory=dict)
    """Ids by fault: ``repeated``, ``never_seen``, ``unknown``."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Samples that carried no loss, and why."""
    parent: str | None = None
    faults: list[str] = field(default_factory=list)
    """What does not agree with the proof."""
    unproven: list[str] = field(default_factory=list)
    """What cannot be known."""
    whole: bool | None = None
    """Whether everything that the data set has was seen, or all that an older pass had; None: not checked."""

    @property
    def lost_samples(self) -> bool:
        """Whether a pass that has ended left out what it had."""
        return self.ended and bool(self.never_seen or self.lost or not self.trained)


@dataclass
class Audit:
    """The verdicts on a run, and what they rest on."""

    passes: list[PassReport]
    at_most_once: str
    complete: str
    complete_json: str
    checkpoint: str | None
    attempts: int | None
    superseded: int
    unsaved: int
    notes: list[str] = field(default_factory=list)

    @property
    def exactly_once(self) -> str:
        if NO in (self.at_most_once, self.complete) or self.wrong:
            return NO
        return YES if self.at_most_once == self.complete == YES else NOT_CHECKED

    @property
    def wrong(self) -> bool:
        """Whether the promise is broken, or the proof disagrees with the ledger."""
        broken = any(one.faults or one.unknown or one.lost_samples for one in self.passes)
        return self.at_most_once == NO or broken

    @property
    def exit_code(self) -> int:
        if self.wrong:
            return EXIT_BROKEN_PROMISE
        return EXIT_DONE if self.exactly_once == YES else EXIT_RUN_AGAIN

    def as_json(self) -> dict[str, Any]:
        """What ``--json`` writes; the counts at the top are those of the newest pass."""
        newest = self.passes[-1]
        verdicts = {key: getattr(self, key) for key in ("exactly_once", "at_most_once", "complete", "complete_json")}
        counts = {key: getattr(newest, key) for key in ("seen_once", "repeated", "never_seen", "added_since", "lost")}
        facts = {key: getattr(self, key) for key in ("checkpoint", "attempts", "superseded", "unsaved", "notes")}
        return {**verdicts, **counts, **facts, "passes": [vars(one) for one in self.passes]}


def audit(save_folder: Path, data_set: DataSet, json_ids: JsonIds | None = None) -> Audit:
    """Check a run.

    Args:
        save_folder: of the run.
        data_set: as it is today.
        json_ids: what the conversations name.

    Raises:
        UserError: there is no ledger, though something was trained or nothing was ever started.
    """
    ledger = save_folder / "ledger"
    started = (save_folder / "launches.jsonl").exists() and not checkpoints(save_folder)
    if not rank_numbers(ledger) and not started:
        raise UserError(f"{save_folder}: no ledger/rank*.jsonl; is this the save_folder of a run?")
    claim = newest_claim(save_folder) or guess_claim(save_folder)
    count = count_ledger(ledger, claim)
    known = [KnownGeneration.read(one) for one in data_set.generations] if data_set.generations is not None else None
    worked_in = [number for number, one in enumerate(claim.passes) if one.spans or one.ended or one.parent]
    newest = max(worked_in, default=0)
    judged = range(newest + 1)
    reports = [report_pass(claim.passes[number], count.passes[number], known, number == newest) for number in judged]
    add_names(ledger, claim, count, reports, known)
    attempts = read_records(save_folder / "launches.jsonl", ("launch",))
    result = Audit(
        reports,
        judge_at_most_once(claim, reports),
        judge_complete(claim, reports[-1]),
        NOT_CHECKED,
        claim.checkpoint.name if claim.checkpoint else None,
        max((line["launch"] for line in attempts), default=None),
        count.superseded,
        count.unsaved,
        [*claim.notes, *notes_on(save_folder, claim, count, data_set)],
    )
    result.complete_json = judge_json(result, count.passes[newest], json_ids or JsonIds())
    return result


def notes_on(save_folder: Path, claim: Claim, count: LedgerCount, data_set: DataSet) -> list[str]:
    """What a reader has to know of how far the verdicts reach."""
    notes = list(count.damaged[:NAMED])
    if claim.checkpoint is None and not claim.batches:
        notes.append("nothing trained yet: no batch was written down by all ranks")
    elif claim.checkpoint is None:
        notes.append("no whole checkpoint carries a proof: which attempt's batches count is guessed, not checked")
    if not (save_folder / "launches.jsonl").exists():
        notes.append("launches.jsonl is lost: the number of attempts is not known")
    if data_set.generations is None:
        notes.append(f"complete: not checked, {data_set.why_not}")
    if count.unsaved:
        notes.append(f"{count.unsaved} batches after the newest checkpoint: a resumed run does them again")
    return notes


def report_pass(
    claim: PassClaim, counted: PassCount, known: list[KnownGeneration] | None, is_newest: bool
) -> PassReport:
    """Hold one pass against its proof and against the data set."""
    trained, skipped, lost = (counted.ids[kind].keys for kind in KINDS)
    seen, times = np.unique(np.concatenate([trained, skipped]), return_counts=True)
    never_trained = np.setdiff1d(lost, seen)
    report = PassReport(
        claim.number,
        claim.ended,
        sum(span.end - span.first for span in claim.spans),
        seen_once=int((times == 1).sum()),
        trained=len(trained),
        skipped=len(skipped),
        lost=len(never_trained),
        repeated=int((times > 1).sum()),
        reasons=counted.reasons,
        faults=[*counted.faults, *disagreements(claim, counted)],
    )
    if claim.parent is not None:
        report.parent = f"{claim.parent.path} (batch {claim.parent.batch})"
        report.trained += claim.parent.ids["trained"].count if claim.parent.ids else 0
        if claim.parent.ids is None:
            report.unproven.append(f"nothing is written down of the pass before batch {claim.parent.batch}")
    if known is not None:
        compare(report, claim, seen, known, is_newest)
    return report


def disagreements(claim: PassClaim, counted: PassCount) -> list[str]:
    """Where the ledger's ids are not those that the checkpoint has counted."""
    if claim.ids is None:
        return []
    faults = []
    for kind in KINDS:
        before = claim.parent.ids[kind] if claim.parent is not None and claim.parent.ids is not None else Sum()
        claimed, found = claim.ids[kind] - before, counted.ids[kind].sum
        if claimed.count != found.count:
            faults.append(f"the checkpoint has {claimed.count} {kind} samples, the ledger {found.count}")
        elif claimed != found:
            faults.append(f"the {kind} samples of the ledger are not those that the checkpoint has counted")
    return faults


def compare(report: PassReport, claim: PassClaim, seen: Keys, known: list[KnownGeneration], is_newest: bool) -> None:
    """Hold a pass against the data set as it is today; fills in the report."""
    by_name = {one.source.name: one for one in known}
    if claim.ended and list(claim.generations) != [WHOLE]:
        members = [by_name[name] for name in claim.generations if name in by_name]
    else:
        members = known
    report.faults += changed_generations(claim, by_name)
    if claim.ended and is_newest:
        report.added_since = sum(one.sum.count for one in known if one not in members)
    report.unknown = int((~np.isin(seen, np.concatenate([one.keys for one in known]))).sum()) if known else len(seen)
    if claim.parent is not None:
        report.whole = compare_with_parent(report, claim, members)
        return
    for one in members:
        unseen = len(one.unseen(seen))
        report.per_generation[one.source.name] = [one.sum.count - unseen, unseen]
        report.never_seen += unseen
    report.never_seen -= min(report.lost, report.never_seen)
    report.whole = not (report.never_seen or report.lost or report.added_since or report.unknown)


def compare_with_parent(report: PassReport, claim: PassClaim, members: list[KnownGeneration]) -> bool | None:
    """Whether a pass that began in another run's ledger has seen everything; only sums are known of that part."""
    if claim.ids is None or claim.parent is None or claim.parent.ids is None:
        return None
    seen = claim.ids["trained"] + claim.ids["skipped"]
    expected = sum((one.sum for one in members), Sum())
    report.never_seen = max(0, expected.count - seen.count)
    if report.ended and report.never_seen == 0 and seen != expected:
        report.faults.append("the samples of parent and run together are not those of the data set")
    return seen == expected and not report.added_since


def changed_generations(claim: PassClaim, by_name: dict[str, KnownGeneration]) -> list[str]:
    """Generations that the pass knew and that are gone, or not the same today."""
    faults = []
    for name, fingerprint in claim.generations.items():
        if name == WHOLE:
            continue
        now = by_name.get(name)
        if now is None:
            faults.append(f"{name}, which the pass had, is not in the data set")
        elif None not in (fingerprint, now.source.fingerprint) and fingerprint != now.source.fingerprint:
            faults.append(f"{name} is not what it was when the pass had it (fingerprint)")
    return faults


def add_names(
    ledger: Path, claim: Claim, count: LedgerCount, reports: list[PassReport], known: list[KnownGeneration] | None
) -> None:
    """Name the first samples of each fault; what was counted twice by a clash of hashes is taken back."""
    everything = np.concatenate([one.keys for one in known]) if known else None
    wanted: list[set[int]] = [set() for _ in claim.passes]
    for report, counted, keys in zip(reports, count.passes, wanted, strict=False):
        if not (report.repeated or report.unknown):
            continue
        seen, times = np.unique(np.concatenate([counted.ids[kind].keys for kind in KINDS[:2]]), return_counts=True)
        keys.update(seen[times > 1][:NAMED].tolist())
        if everything is not None:
            keys.update(seen[~np.isin(seen, everything)][:NAMED].tolist())
    in_data_set = set(everything.tolist()) if everything is not None and any(wanted) else None
    for report, names, keys in zip(reports, names_of(ledger, claim, wanted), wanted, strict=False):
        report.names["repeated"] = sorted(name for name, times in names.items() if times > 1)
        if in_data_set is not None:
            report.names["unknown"] = sorted(name for name in names if key_of(hash_id(name)) not in in_data_set)
        if report.repeated <= NAMED and keys:
            report.repeated = len(report.names["repeated"])
    for report, counted in zip(reports, count.passes, strict=False):
        if known is not None and report.never_seen and report.parent is None:
            report.names["never_seen"] = never_seen_names(report, counted, known)


def never_seen_names(report: PassReport, counted: PassCount, known: list[KnownGeneration]) -> list[str]:
    seen = np.concatenate([counted.ids[kind].keys for kind in KINDS])
    members = (one for one in known if one.source.name in report.per_generation)
    named = (name for one in members for name in one.names(set(one.unseen(seen).tolist())))
    return list(islice(named, NAMED))


def judge_at_most_once(claim: Claim, reports: list[PassReport]) -> str:
    """No if anything was seen twice, or the ledger does not show what the run claims."""
    if any(one.repeated or one.faults or one.unknown for one in reports):
        return NO
    return NOT_CHECKED if claim.checkpoint is None or any(one.unproven for one in reports) else YES


def judge_complete(claim: Claim, newest: PassReport) -> str:
    """Of the newest pass, against the data set as it is today."""
    if newest.whole is False or not newest.trained or newest.faults or newest.lost_samples:
        return NO
    return NOT_CHECKED if newest.whole is None or claim.checkpoint is None else YES


def judge_json(result: Audit, counted: PassCount, json_ids: JsonIds) -> str:
    """Of the newest pass; says in a note what is missing."""
    if json_ids.ids is None or result.passes[-1].parent is not None:
        why = json_ids.why_not if json_ids.ids is None else "the pass began in another run"
        result.notes.append(f"complete against the JSON: not checked, {why}")
        return NOT_CHECKED
    missing = json_ids.unseen(np.concatenate([counted.ids[kind].keys for kind in KINDS[:2]]))
    if missing:
        result.notes.append(f"the JSON names {missing:,} samples that the pass has not seen")
    return NO if missing else YES
