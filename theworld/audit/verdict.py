"""The three verdicts: at most once, complete against the data set, complete against the JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from theworld.audit.claim import KINDS, Claim, PassClaim, Sum, checkpoints, newest_claim
from theworld.audit.compare import Seen, compare
from theworld.audit.count import (
    NAMED,
    LedgerCount,
    PassCount,
    count_ledger,
    hash_id,
    key_of,
    names_of,
    rank_numbers,
)
from theworld.audit.data_set import DataSet, JsonIds, KnownGeneration
from theworld.audit.old_runs import guess_claim, read_records
from theworld.audit.report import PassReport
from theworld.errors import EXIT_BROKEN_PROMISE, EXIT_DONE, EXIT_RUN_AGAIN, UserError

YES, NO, NOT_CHECKED = "yes", "no", "not checked"


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
        sources = {"sources": newest.sources} if newest.sources else {}
        return {**verdicts, **counts, **sources, **facts, "passes": [one.as_json() for one in self.passes]}


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
        repeated=0 if claim.sources else int((times > 1).sum()),
        repeated_keys=seen[:0] if claim.sources else seen[times > 1],
        reasons=counted.reasons,
        faults=[*counted.faults, *disagreements(claim, counted)],
    )
    if claim.parent is not None:
        report.parent = f"{claim.parent.path} (batch {claim.parent.batch})"
        report.trained += claim.parent.ids["trained"].count if claim.parent.ids else 0
        if claim.parent.ids is None:
            report.unproven.append(f"nothing is written down of the pass before batch {claim.parent.batch}")
    if known is not None:
        compare(report, claim, Seen(seen, times, lost), known, is_newest)
    elif claim.sources:
        report.unproven.append("how often each sample is due is not known without its data sets")
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


def add_names(
    ledger: Path, claim: Claim, count: LedgerCount, reports: list[PassReport], known: list[KnownGeneration] | None
) -> None:
    """Name the first samples of each fault; what was counted twice by a clash of hashes is taken back."""
    everything = np.concatenate([one.keys for one in known]) if known else None
    wanted: list[set[int]] = [set() for _ in claim.passes]
    for report, counted, keys in zip(reports, count.passes, wanted, strict=False):
        if not (report.repeated or report.unknown):
            continue
        keys.update(report.repeated_keys[:NAMED].tolist())
        if everything is not None:
            seen = np.unique(np.concatenate([counted.ids[kind].keys for kind in KINDS[:2]]))
            keys.update(seen[~np.isin(seen, everything)][:NAMED].tolist())
    in_data_set = set(everything.tolist()) if everything is not None and any(wanted) else None
    for report, names, one in zip(reports, names_of(ledger, claim, wanted), claim.passes, strict=False):
        repeated = set(report.repeated_keys.tolist())
        # By its name, not its hash; what is due more than once is told apart by the hash alone.
        report.names["repeated"] = sorted(
            name for name, times in names.items() if (key_of(hash_id(name)) in repeated if one.sources else times > 1)
        )
        if in_data_set is not None:
            report.names["unknown"] = sorted(name for name in names if key_of(hash_id(name)) not in in_data_set)
        if report.repeated <= NAMED and report.repeated and not one.sources:
            report.repeated = len(report.names["repeated"])
    for report in reports:
        if known is not None and report.never_seen and report.parent is None:
            report.names["never_seen"] = never_seen_names(report, known)


def never_seen_names(report: PassReport, known: list[KnownGeneration]) -> list[str]:
    members = [one for one in known if one.source.name in report.per_generation]
    pairs = zip(members, report.never_seen_keys, strict=True)
    return list(islice((name for one, keys in pairs for name in one.names(set(keys.tolist()))), NAMED))


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
