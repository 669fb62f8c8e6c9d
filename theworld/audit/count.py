"""The ledger, counted along a lineage.

Memory is 8 bytes for each id of each pass, and the ledger is read line by line: 909,419 ids in each of 10 passes are
73 MB, whatever the number of rank files.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theworld.audit.claim import KINDS, MODULUS, Claim, Span, Sum

Keys = NDArray[np.uint64]

RANK_FILE = re.compile(r"rank(\d+)\.jsonl")
MOST_COPIES = 1_000_000
"""Of a sample in one batch; a line that says more is damaged."""
NAMED = 1000
"""Most ids that are named of a kind of fault; all are counted."""


def hash_id(sample_id: str) -> int:
    """128 bits that stand for an id."""
    return int.from_bytes(hashlib.blake2b(sample_id.encode("utf-8"), digest_size=16).digest(), "big")


def key_of(hashed: int) -> int:
    """The 64 bits of it by which ids are compared."""
    return hashed & (2**64 - 1)


class Tally:
    """Ids of one kind in one pass."""

    def __init__(self) -> None:
        self._keys = array("Q")
        self._digest = 0

    def add(self, sample_id: str) -> None:
        hashed = hash_id(sample_id)
        self._digest += hashed
        self._keys.append(key_of(hashed))

    @property
    def sum(self) -> Sum:
        return Sum(len(self._keys), self._digest % MODULUS)

    @property
    def keys(self) -> Keys:
        """(n,) uint64, in the order of the ledger."""
        return np.frombuffer(self._keys, np.uint64) if len(self._keys) else np.zeros(0, np.uint64)


@dataclass
class PassCount:
    """What the ledger holds of one pass."""

    ids: dict[str, Tally] = field(default_factory=lambda: {kind: Tally() for kind in KINDS})
    reasons: dict[str, str] = field(default_factory=dict)
    """Why samples were skipped; of the first :data:`NAMED`."""
    faults: list[str] = field(default_factory=list)
    """Lines that should be there and are not, or are there twice."""


@dataclass
class LedgerCount:
    """What the ledger holds."""

    passes: list[PassCount]
    superseded: int = 0
    """Batches that were trained again after a stop."""
    unsaved: int = 0
    """Batches after the newest checkpoint."""
    damaged: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """A span of a pass."""

    span: Span
    pass_index: int


def count_ledger(ledger: Path, claim: Claim) -> LedgerCount:
    """Count all lines that are part of the claim's lineage."""
    places = places_by_launch(claim)
    count = LedgerCount([PassCount() for _ in claim.passes])
    ranks = max((span.ranks for one in claim.passes for span in one.spans), default=0)
    others = {number for number in rank_numbers(ledger) if number >= ranks}
    for rank in [*range(ranks), *sorted(others)]:
        count_rank(ledger, rank, places, claim.batches, count)
    return count


def count_rank(ledger: Path, rank: int, places: dict[int, list[Place]], batches: int, count: LedgerCount) -> None:
    """Count one rank's file, and note the lines that are missing or there twice."""
    lines_of = {place: bytearray(place.span.end - place.span.first) for one in places.values() for place in one}
    for line in read_lines(ledger / f"rank{rank}.jsonl", count.damaged):
        place = find(places, line["launch"], line["batch"])
        if place is None:
            count.superseded += rank == 0 and line["batch"] < batches
            count.unsaved += rank == 0 and line["batch"] >= batches
            continue
        offset = line["batch"] - place.span.first
        lines_of[place][offset] = min(lines_of[place][offset] + 1, 255)
        add_line(count.passes[place.pass_index], line)
    for place, lines in lines_of.items():
        expected = int(rank < place.span.ranks)
        wrong = np.flatnonzero(np.frombuffer(lines, np.uint8) != expected)
        if len(wrong):
            first = int(wrong[0])
            more = f", and {len(wrong) - 1} batches more" if len(wrong) > 1 else ""
            count.passes[place.pass_index].faults.append(
                f"batch {place.span.first + first}: {lines[first]} lines of rank {rank} by attempt "
                f"{place.span.launch}, {expected} expected{more}"
            )


def add_line(counted: PassCount, line: dict[str, Any]) -> None:
    for sample_id in line["ids"]:
        counted.ids["trained"].add(sample_id)
    for sample_id, reason in line.get("skipped", {}).items():
        for _copy in range(line.get("skipped_copies", {}).get(sample_id, 1)):
            counted.ids["skipped"].add(sample_id)
        if len(counted.reasons) < NAMED:
            counted.reasons[sample_id] = reason
    for sample_id in line.get("lost", []):
        counted.ids["lost"].add(sample_id)


def names_of(ledger: Path, claim: Claim, wanted: list[set[int]]) -> list[Counter[str]]:
    """How often each id was seen, for those of some keys; the ledger is read once more.

    Args:
        ledger: the folder.
        claim: its lineage.
        wanted: for each pass the keys to name.
    """
    places = places_by_launch(claim)
    found: list[Counter[str]] = [Counter() for _ in claim.passes]
    for rank in rank_numbers(ledger) if any(wanted) else []:
        for line in read_lines(ledger / f"rank{rank}.jsonl", []):
            place = find(places, line["launch"], line["batch"])
            if place is not None and wanted[place.pass_index]:
                keys = wanted[place.pass_index]
                copies = line.get("skipped_copies", {})
                names = [*line["ids"], *(name for name in line.get("skipped", {}) for _ in range(copies.get(name, 1)))]
                found[place.pass_index].update(name for name in names if key_of(hash_id(name)) in keys)
    return found


def places_by_launch(claim: Claim) -> dict[int, list[Place]]:
    places: dict[int, list[Place]] = {}
    for number, one in enumerate(claim.passes):
        for span in one.spans:
            places.setdefault(span.launch, []).append(Place(span, number))
    return places


def find(places: dict[int, list[Place]], launch: int, batch: int) -> Place | None:
    """The span that a line is part of; None if its batch was superseded."""
    for place in places.get(launch, ()):
        if place.span.first <= batch < place.span.end:
            return place
    return None


def rank_numbers(ledger: Path) -> list[int]:
    """Ranks that have a file."""
    matches = (RANK_FILE.fullmatch(path.name) for path in (ledger.iterdir() if ledger.is_dir() else []))
    return sorted(int(match[1]) for match in matches if match)


def read_lines(path: Path, damaged: list[str]) -> Iterator[dict[str, Any]]:
    """The lines of a file; one that a kill cut short at the very end is passed over, and one that is damaged is named
    in ``damaged``. No file is no lines."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if not text.endswith(b"\n"):
                return
            line = parse_line(text)
            if line is None:
                damaged.append(f"{path.parent.name}/{path.name}: line {number} is damaged")
            else:
                yield line


def parse_line(text: bytes) -> dict[str, Any] | None:
    """A line of the ledger; None if it is not one."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    good = (
        isinstance(line, dict)
        and isinstance(line.get("launch"), int)
        and isinstance(line.get("batch"), int)
        and isinstance(line.get("ids"), list)
        and isinstance(line.get("skipped", {}), dict)
        and isinstance(line.get("lost", []), list)
        and isinstance(line.get("skipped_copies", {}), dict)
        and all(type(copies) is int and 1 < copies < MOST_COPIES for copies in line.get("skipped_copies", {}).values())
    )
    return line if good else None
