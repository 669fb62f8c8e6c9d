"""Was every sample trained on exactly once per pass? Answered from the ledger alone.

Only the standard library and the list of ids of the data set are needed; nothing of the training code is imported, so
that a mistake there cannot hide here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from theworld.errors import UserError


@dataclass
class PassReport:
    """What happened in one pass."""

    number: int
    finished: bool
    batches: int
    seen_once: int = 0
    repeated: list[str] = field(default_factory=list)
    never_seen: dict[str, list[str]] = field(default_factory=dict)
    """By generation; only those that the pass had."""
    per_generation: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    """Ids that the data set does not have."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Ids that were met but carried no loss, and why."""

    @property
    def kept(self) -> bool:
        """Whether the promise holds: nothing twice, and nothing left out of a finished pass."""
        missing = any(self.never_seen.values()) if self.finished else False
        return not (self.repeated or self.unknown or missing)


@dataclass
class Audit:
    """The passes of a run."""

    passes: list[PassReport]
    attempts: int
    superseded_batches: int
    missing_lines: list[str]

    @property
    def kept(self) -> bool:
        return not self.missing_lines and all(report.kept for report in self.passes)


def audit(save_folder: Path, generations: dict[str, list[str]] | None) -> Audit:
    """Check a run.

    Args:
        save_folder: of the run.
        generations: the ids of each generation of the data set, in order; None if not known, then only repeats are
            found.

    Raises:
        UserError: there is no ledger, or a line of it is damaged.
    """
    ledger = save_folder / "ledger"
    ranks = {path.stem: list(read_lines(path)) for path in sorted(ledger.glob("rank*.jsonl"))}
    if not ranks:
        raise UserError(f"{save_folder}: no ledger/rank*.jsonl; is this the save_folder of a run?")
    first_batch: dict[int, int] = {}
    for line in (line for lines in ranks.values() for line in lines):
        first_batch[line["launch"]] = min(line["batch"], first_batch.get(line["launch"], line["batch"]))
    surviving: dict[int, list[dict[str, Any]]] = {}
    superseded = set()
    for line in (line for lines in ranks.values() for line in lines):
        if any(later > line["launch"] and first <= line["batch"] for later, first in first_batch.items()):
            superseded.add((line["launch"], line["batch"]))
        else:
            surviving.setdefault(line["batch"], []).append(line)
    ranks_of = ranks_of_attempts(save_folder)
    done = drop_unfinished_batches(surviving, ranks_of)
    ends = pass_ends(ledger / "passes.jsonl", done, first_batch)
    known_ids = {name: set(ids) for name, ids in generations.items()} if generations is not None else None
    reports = [
        report_pass(number, start, end, members, surviving, known_ids)
        for number, (start, end, members) in enumerate(ends)
    ]
    return Audit(
        reports, len(first_batch), len(superseded), missing_lines(surviving, done, ranks_of_attempts(save_folder))
    )


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file; one that a kill cut short at the very end is passed over."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}: line {number} is damaged: {error}") from error


def ranks_of_attempts(save_folder: Path) -> dict[int, int]:
    """Ranks of each attempt."""
    return {line["launch"]: line["ranks"] for line in read_lines(save_folder / "launches.jsonl")}


def drop_unfinished_batches(surviving: dict[int, list[dict[str, Any]]], ranks: dict[int, int]) -> int:
    """Drop batches at the very end that some rank had not written down when the run was stopped.

    They are after the last checkpoint, since the ledger is forced to disk before it, and a resumed run does them again.

    Returns:
        How many batches of the run are done.
    """
    done = max(surviving, default=-1) + 1
    while done and len(surviving.get(done - 1, [])) < expected_lines(surviving.get(done - 1, []), ranks):
        done -= 1
        surviving.pop(done, None)
    return done


def expected_lines(lines: list[dict[str, Any]], ranks: dict[int, int]) -> int:
    """How many ranks should have written down this batch."""
    return ranks.get(lines[0]["launch"], 1) if lines else 1


def pass_ends(path: Path, batches: int, first_batch: dict[int, int]) -> list[tuple[int, int, list[str] | None]]:
    """First and last batch (exclusive) of each pass and the generations it had; None for the one not finished.

    Args:
        path: ``passes.jsonl``.
        batches: done by the run.
        first_batch: of each attempt; a later attempt that began before a pass's end supersedes that end too.
    """
    ended: dict[int, tuple[int, list[str]]] = {}
    for line in read_lines(path) if path.exists() else []:
        if any(later > line["launch"] and first < line["batches"] for later, first in first_batch.items()):
            continue
        ended[line["pass"]] = (line["batches"], [generation["name"] for generation in line["generations"]])
    passes: list[tuple[int, int, list[str] | None]] = []
    start = 0
    for number in sorted(ended):
        end, members = ended[number]
        passes.append((start, end, members))
        start = end
    if batches > start or not passes:
        passes.append((start, batches, None))
    return passes


def report_pass(
    number: int,
    start: int,
    end: int,
    members: list[str] | None,
    surviving: dict[int, list[dict[str, Any]]],
    generations: dict[str, set[str]] | None,
) -> PassReport:
    """Count the ids of the batches ``start .. end - 1``."""
    report = PassReport(number, finished=members is not None, batches=end - start)
    seen: Counter[str] = Counter()
    for line in (line for batch in range(start, end) for line in surviving.get(batch, [])):
        seen.update(line["ids"])
        # A list, since Counter would take the reasons of a mapping for counts.
        seen.update(list(line.get("skipped", {})))
        report.skipped.update(line.get("skipped", {}))
    report.seen_once = sum(count == 1 for count in seen.values())
    report.repeated = sorted(name for name, count in seen.items() if count > 1)
    if generations is None:
        return report
    # A data set made by other tools has no generations; its one part is called "all".
    expected = list(generations) if members is None or members == ["all"] else members
    for name in expected:
        ids = generations.get(name, set())
        report.never_seen[name] = sorted(ids - seen.keys())
        report.per_generation[name] = len(ids & seen.keys())
    report.unknown = sorted(seen.keys() - set().union(*generations.values()))
    return report


def missing_lines(surviving: dict[int, list[dict[str, Any]]], batches: int, ranks: dict[int, int]) -> list[str]:
    """Batches that some rank did not write down, or one wrote down twice."""
    faults = []
    for batch in range(batches):
        lines = surviving.get(batch, [])
        expected = expected_lines(lines, ranks)
        if len(lines) != expected:
            faults.append(f"batch {batch}: {len(lines)} lines for {expected} ranks")
    return faults
