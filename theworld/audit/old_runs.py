"""The lineage of a run whose checkpoints carry none, guessed from the order of its lines.

An attempt is taken to have gone on from the newest earlier attempt that had got as far. That need not be so (an attempt
may have fallen back to an older checkpoint), and so what follows from it is never a proof.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from theworld.audit.claim import Claim, PassClaim, Span
from theworld.audit.count import rank_numbers, read_lines


def guess_claim(save_folder: Path) -> Claim:
    """What a run without a proof seems to have done."""
    ledger = save_folder / "ledger"
    begins, ends = extent_of_attempts(ledger)
    facts = {line["launch"]: line for line in read_records(save_folder / "launches.jsonl", ("launch", "ranks"))}
    ranks = {launch: facts.get(launch, {}).get("ranks", len(of_rank)) for launch, of_rank in ends.items()}
    first = {launch: facts.get(launch, {}).get("resumed_batch", begin) for launch, begin in begins.items()}
    # A batch at the very end counts when all ranks have written it down.
    done = {launch: min(ends[launch].get(rank, 0) for rank in range(ranks[launch])) for launch in ends}
    spans = guess_spans(first, done, ranks)
    return Claim(None, cut_into_passes(spans, pass_ends(ledger / "passes.jsonl", spans)))


def extent_of_attempts(ledger: Path) -> tuple[dict[int, int], dict[int, dict[int, int]]]:
    """First batch of each attempt, and the end of its batches on each rank."""
    begins: dict[int, int] = {}
    ends: dict[int, dict[int, int]] = {}
    for rank in rank_numbers(ledger):
        for line in read_lines(ledger / f"rank{rank}.jsonl", []):
            launch, batch = line["launch"], line["batch"]
            begins[launch] = min(batch, begins.get(launch, batch))
            of_rank = ends.setdefault(launch, {})
            of_rank[rank] = max(batch + 1, of_rank.get(rank, 0))
    return begins, ends


def guess_spans(first: dict[int, int], done: dict[int, int], ranks: dict[int, int]) -> list[Span]:
    """Which attempt's batches count, in order of batches."""
    spans: list[Span] = []
    below: int | None = None
    for launch in sorted(first, reverse=True):
        end = done[launch] if below is None else below
        if first[launch] < end and (below is None or done[launch] >= below):
            spans.append(Span(launch, first[launch], end, ranks[launch]))
            below = first[launch]
    if below:
        # Nobody is known to have done the beginning: say so by lines that are missing.
        spans.append(Span(min(first), 0, below, ranks[min(first)]))
    return spans[::-1]


def pass_ends(path: Path, spans: list[Span]) -> list[tuple[int, dict[str, str | None]]]:
    """Where each ended pass ended, and the generations that it had; ends that a resume undid are left out."""
    ended: dict[int, tuple[int, dict[str, str | None]]] = {}
    for line in read_records(path, ("launch", "pass", "batches", "generations")):
        if any(span.launch == line["launch"] and span.first < line["batches"] <= span.end for span in spans):
            names = {one["name"]: one.get("fingerprint") for one in line["generations"]}
            ended[line["pass"]] = (line["batches"], names)
    return [ended[number] for number in sorted(ended)]


def cut_into_passes(spans: list[Span], ends: list[tuple[int, dict[str, str | None]]]) -> list[PassClaim]:
    total = spans[-1].end if spans else 0
    passes: list[PassClaim] = []
    start = 0
    for end, generations in ends:
        passes.append(PassClaim(len(passes), True, between(spans, start, end), None, generations))
        start = end
    if start < total or not passes:
        passes.append(PassClaim(len(passes), False, between(spans, start, total), None, {}))
    return passes


def between(spans: list[Span], start: int, end: int) -> list[Span]:
    """The parts of the spans within some batches."""
    cut = [Span(span.launch, max(span.first, start), min(span.end, end), span.ranks) for span in spans]
    return [span for span in cut if span.first < span.end]


def read_records(path: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Whole lines of another file of the run that have these keys; the others prove nothing."""
    found = []
    for text in path.read_bytes().splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and all(key in line for key in keys):
            found.append(line)
    return found
