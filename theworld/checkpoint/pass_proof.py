"""The proof that a checkpoint carries: which attempts did its batches, and which samples those were.

The samples of a pass are held as a count and a sum of hashes, so that neither their order nor the ranks matter, a
sample twice is another sum than once, and two sums tell whether two collections of ids are the same. Three are kept
apart: samples that were trained on, those that cannot carry loss, and those whose step was lost because it was not
finite. ``theworld/audit`` computes the same from the ledger by code of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

PROOF = "theworld_proof"
"""Key beside Composer's own in a checkpoint's ``state``: JSON text, so that a sharded checkpoint can hold it too."""
VERSION = 1
BITS = 128
KINDS = ("trained", "skipped", "lost")


@dataclass
class IdSum:
    """How many ids, and the sum of their BLAKE2b hashes modulo 2**128."""

    count: int = 0
    total: int = 0

    def add(self, sample_id: str) -> None:
        digest = hashlib.blake2b(sample_id.encode("utf-8"), digest_size=BITS // 8).digest()
        self.count += 1
        self.total = (self.total + int.from_bytes(digest, "big")) % 2**BITS

    def merge(self, other: IdSum) -> None:
        self.count += other.count
        self.total = (self.total + other.total) % 2**BITS

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "digest": f"{self.total:0{BITS // 4}x}"}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> IdSum:
        return cls(int(state["count"]), int(state["digest"], 16))


def no_ids() -> dict[str, IdSum]:
    """An empty sum for each kind of id."""
    return {kind: IdSum() for kind in KINDS}


@dataclass
class Span:
    """Batches ``first .. end - 1`` of the run, done by one attempt on so many ranks."""

    launch: int
    first: int
    end: int
    ranks: int


@dataclass
class PassRecord:
    """One pass."""

    number: int
    ended: bool = False
    spans: list[Span] = field(default_factory=list)
    ids: dict[str, IdSum] = field(default_factory=no_ids)
    generations: list[dict[str, Any]] = field(default_factory=list)
    """What the pass knew: name, samples, shards and fingerprint of each."""
    mix: dict[str, Any] | None = None
    """What it takes of the data sets that it mixes (:class:`~theworld.data.batches.mixture.PassMix`)."""
    parent: dict[str, Any] | None = None
    """Where the pass began if not in this run's ledger: ``path``, ``batch``, and under ``ids`` what it had by then;
    that is None where nobody wrote it down."""

    def state_dict(self) -> dict[str, Any]:
        return {
            "pass": self.number,
            "ended": self.ended,
            "lineage": [[span.launch, span.first, span.end, span.ranks] for span in self.spans],
            "generations": self.generations,
            "parent": self.parent,
            **({"mix": self.mix} if self.mix is not None else {}),
            **sums_to_state(self.ids),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> PassRecord:
        return cls(
            state["pass"],
            state["ended"],
            [Span(*span) for span in state["lineage"]],
            {kind: IdSum.from_state(state[kind]) for kind in KINDS},
            state["generations"],
            state.get("mix"),
            state["parent"],
        )


def sums_to_state(ids: dict[str, IdSum]) -> dict[str, Any]:
    return {kind: ids[kind].state_dict() for kind in KINDS}


@dataclass
class RunProof:
    """The passes of a run, the open one last; the same on all ranks."""

    passes: list[PassRecord] = field(default_factory=lambda: [PassRecord(0)])

    @classmethod
    def from_text(cls, text: str) -> RunProof:
        return cls([PassRecord.from_state(one) for one in json.loads(text)["passes"]])

    @classmethod
    def without_beginning(cls, path: str, batch: int, number: int, known: RunProof | None) -> RunProof:
        """Of a run whose open pass began elsewhere.

        Args:
            path: the checkpoint that it goes on from.
            batch: batches that were done by then.
            number: of the pass.
            known: the proof in that checkpoint, if it carries one.
        """
        before = known.open if known is not None else None
        parent = {"path": path, "batch": batch, "ids": sums_to_state(before.ids) if before else None}
        if before is not None and before.parent is not None and before.parent["ids"] is None:
            parent["ids"] = None
        ids = before.ids if before is not None else no_ids()
        return cls([PassRecord(number, ids=ids, parent=parent)])

    @property
    def open(self) -> PassRecord:
        """The pass that is going on."""
        return self.passes[-1]

    def reopen(self) -> None:
        """The last pass that has ended goes on; nothing was done of the next one yet."""
        if len(self.passes) > 1 and all(span.first == span.end for span in self.open.spans):
            self.passes.pop()
            self.open.ended = False

    def begin_attempt(self, launch: int, batch: int, ranks: int) -> None:
        """An attempt goes on after so many batches."""
        self.open.spans.append(Span(launch, batch, batch, ranks))

    def advance(
        self,
        batch: int,
        ids: Iterable[dict[str, IdSum]],
        generations: list[dict[str, Any]],
        mix: dict[str, Any] | None = None,
    ) -> None:
        """So many batches are done now.

        Args:
            batch: batches done by the run.
            ids: of each rank, those since the last call.
            generations: what the pass knows now.
            mix: what it takes of them, where it mixes data sets.
        """
        self.open.spans[-1].end = batch
        self.open.generations = generations
        self.open.mix = mix
        for found in ids:
            for kind, one in found.items():
                self.open.ids[kind].merge(one)

    def end_pass(self) -> None:
        """The open pass is over; the next one begins with the same attempt."""
        last = self.open.spans[-1]
        self.open.ended = True
        self.passes.append(PassRecord(self.open.number + 1, spans=[Span(last.launch, last.end, last.end, last.ranks)]))

    def text(self) -> str:
        """What goes into the checkpoint. The key comes first, by which the audit finds the text."""
        return json.dumps({PROOF: VERSION, "passes": [one.state_dict() for one in self.passes]})
