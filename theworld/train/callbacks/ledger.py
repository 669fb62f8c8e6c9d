"""The ledger: which sample was trained on in which batch, written so that anyone can audit it.

One file per rank, ``<save_folder>/ledger/rank<R>.jsonl``, one line an optimizer batch: ``launch`` counts the starts of
the run, ``batch`` the optimizer batches of the run from 0, ``ids`` are the samples that were trained on, ``skipped``
names those that carried no loss and why, ``lost`` those of a step that was not made, because it was not finite. Lines
of a killed attempt whose batches a later attempt trained again are superseded by that attempt's; which lines count is
told by the proof in the checkpoint (:mod:`theworld.checkpoint.pass_proof`). ``<save_folder>/ledger/passes.jsonl`` says
where each pass ended and which generations it had: ``batches`` is the number of optimizer batches of the run by then. A
pass that goes on when new samples have come has a line for each end.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from theworld.checkpoint.pass_proof import PROOF, RunProof, no_ids
from theworld.data.batches.closed_pass import ClosedPass
from theworld.data.batches.collate import PADDING_SAMPLE
from theworld.data.batches.passes import PassDataset
from theworld.disk_space import CannotWrite, free_space, is_full
from theworld.files import append_line, drop_partial_line, last_json_line, sync_file
from theworld.ranks import from_rank_zero, raise_together
from theworld.train.callbacks.finite_steps import FiniteSteps


class Ledger(Callback):
    """Appends this rank's line for each optimizer batch.

    Lines reach the operating system at each batch and the disk before each checkpoint, so that a checkpoint never
    knows of a batch that the ledger does not. Where the disk is full they wait in memory for the next checkpoint.

    Args:
        save_folder: of the run.
        attempt: which start of the run this is.
        dataset: what the batches come from.
        loaded: the checkpoint that the run goes on from, if it does.
        branched: that checkpoint is another run's.
        proof: what that checkpoint carries.
        steps: knows which steps were lost; its callback comes before this one.
    """

    def __init__(
        self,
        save_folder: Path,
        attempt: int,
        dataset: PassDataset,
        loaded: str | None = None,
        branched: bool = False,
        proof: str | None = None,
        steps: FiniteSteps | None = None,
    ) -> None:
        self.path = save_folder / "ledger" / f"rank{dist.get_global_rank()}.jsonl"
        self.attempt = attempt
        self.dataset = dataset
        self.loaded, self.branched, self.carried = loaded, branched, proof
        self.steps = steps
        self.file: IO[bytes] | None = None
        self.waiting = b""
        """Lines for which there was no room."""
        self.batches = 0
        self.proof = RunProof()
        self.unproven = no_ids()
        """Of this rank, since the proof was last brought up to date."""

    def fit_start(self, state: State, logger: Logger) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        drop_partial_line(self.path)
        self.file = self.path.open("ab", buffering=0)
        self.batches = int(state.timestamp.batch)
        self.proof = self.proof_so_far(int(state.timestamp.epoch))
        self.proof.begin_attempt(self.attempt, self.batches, dist.get_world_size())

    def proof_so_far(self, number: int) -> RunProof:
        """What was proven when this attempt began, in the pass ``number``."""
        if self.batches == 0 or self.loaded is None:
            return RunProof()
        known = RunProof.from_text(self.carried) if self.carried is not None else None
        if known is not None and known.open.number > number:
            known.reopen()
        if known is not None and not self.branched:
            return known
        return RunProof.without_beginning(self.loaded, self.batches, number, known)

    def batch_end(self, state: State, logger: Logger) -> None:
        assert self.file is not None
        line: dict[str, Any] = {"launch": self.attempt, "batch": int(state.timestamp.batch) - 1, "ids": []}
        lost = self.steps is not None and self.steps.step_was_lost
        for sample_id, reason in zip(state.batch["sample_ids"], state.batch["skipped"], strict=True):
            if reason == PADDING_SAMPLE:
                continue
            kind = "lost" if lost else "skipped" if reason else "trained"
            self.unproven[kind].add(sample_id)
            if kind == "skipped":
                if sample_id in line.setdefault(kind, {}):  # another copy of it
                    copies = line.setdefault("skipped_copies", {})
                    copies[sample_id] = copies.get(sample_id, 1) + 1
                line[kind][sample_id] = reason
            else:
                line.setdefault("ids" if kind == "trained" else kind, []).append(sample_id)
        if lost:
            self.dataset.lose(int(state.timestamp.sample_in_epoch))
        self.waiting += (json.dumps(line) + "\n").encode()
        self._write()
        self.batches = int(state.timestamp.batch)

    def epoch_end(self, state: State, logger: Logger) -> None:
        ended = self.dataset.closed
        self.update_proof(ended)
        self.proof.end_pass()
        if dist.get_global_rank() == 0:
            line = {
                "launch": self.attempt,
                "pass": int(state.timestamp.epoch) - 1,
                "batches": int(state.timestamp.batch),
                "generations": self.proof.passes[-2].generations,
            }
            append_line(self.path.parent / "passes.jsonl", line)

    def update_proof(self, ended: ClosedPass | None = None) -> None:
        """Put together what the ranks did since the last time; all ranks call it.

        Args:
            ended: the pass, if it has just ended; the data set is at the next one already.
        """
        known = ended.generations if ended is not None else self.dataset.snapshot.generations
        mix = ended.mix if ended is not None else self.dataset.mix
        self.proof.advance(
            self.batches,
            dist.all_gather_object(self.unproven),
            [generation.state_dict() for generation in known],
            mix.state_dict() if mix.is_named else None,
        )
        self.unproven = no_ids()

    def _write(self) -> OSError | None:
        """Write what waits; the error where the disk is too full for it, and the rest goes on waiting."""
        assert self.file is not None
        try:
            while self.waiting:
                self.waiting = self.waiting[self.file.write(self.waiting) :]
        except OSError as error:
            if not is_full(error):
                raise
            return error
        return None

    def sync(self) -> None:
        """Force the lines to disk, and bring the proof up to them; all ranks call it before a save.

        Raises:
            CannotWrite: on all ranks, where one of them could not.
        """
        fault = None
        if self.file is not None:
            error = self._write()
            try:
                sync_file(self.file)
            except OSError as refused:
                error = error or refused
            if error is not None:
                fault = CannotWrite(f"{self.path}: {error.strerror}; {free_space(self.path.parent)}")
        raise_together(fault)
        self.update_proof()

    def add_proof(self, checkpoint: dict[str, Any]) -> None:
        """Put the proof into a checkpoint that is about to be written."""
        checkpoint["state"][PROOF] = self.proof.text()

    def close(self, state: State, logger: Logger) -> None:
        if self.file is not None:
            self._write()
            self.file.close()
            self.file = None


def record_attempt(save_folder: Path, number: int, facts: dict[str, Any]) -> None:
    """Record a start of the run in ``launches.jsonl``. Rank 0 writes."""
    from_rank_zero(lambda: append_line(save_folder / "launches.jsonl", {"launch": number, **facts}))


def newest_attempt(save_folder: Path) -> int:
    """The highest number that ``launches.jsonl`` or the ledger knows, for the one may have been lost without the
    other; 0 if there is none."""
    files = [save_folder / "launches.jsonl", *(save_folder / "ledger").glob("rank*.jsonl")]
    return max((int(line["launch"]) for line in map(last_json_line, files) if line is not None), default=0)
