"""The ledger: which sample was trained on in which batch, written so that anyone can audit it.

One file per rank, ``<save_folder>/ledger/rank<R>.jsonl``, one line an optimizer batch: ``launch`` counts the starts of
the run, ``batch`` the optimizer batches of the run from 0, ``ids`` are the samples that were trained on, ``skipped``
names those that carried no loss and why. Lines of a killed attempt whose batches a later attempt trained again are
superseded by that attempt's. ``<save_folder>/ledger/passes.jsonl`` says where each pass ended and which generations
it had: ``batches`` is the number of optimizer batches of the run done by then.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from theworld.data.batches.collate import PADDING_SAMPLE
from theworld.data.batches.passes import PassDataset
from theworld.files import append_line, drop_partial_line, sync_file
from theworld.ranks import from_rank_zero


class Ledger(Callback):
    """Appends this rank's line for each optimizer batch.

    Lines reach the operating system at each batch and the disk before each checkpoint, so that a checkpoint never
    knows of a batch that the ledger does not.
    """

    def __init__(self, save_folder: Path, attempt: int, dataset: PassDataset) -> None:
        self.path = save_folder / "ledger" / f"rank{dist.get_global_rank()}.jsonl"
        self.attempt = attempt
        self.dataset = dataset
        self.file: IO[bytes] | None = None

    def fit_start(self, state: State, logger: Logger) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        drop_partial_line(self.path)
        self.file = self.path.open("ab")

    def batch_end(self, state: State, logger: Logger) -> None:
        assert self.file is not None
        line: dict[str, Any] = {"launch": self.attempt, "batch": int(state.timestamp.batch) - 1, "ids": []}
        skipped: dict[str, str] = {}
        for sample_id, reason in zip(state.batch["sample_ids"], state.batch["skipped"], strict=True):
            if reason == PADDING_SAMPLE:
                continue
            if reason:
                skipped[sample_id] = reason
            else:
                line["ids"].append(sample_id)
        if skipped:
            line["skipped"] = skipped
        self.file.write((json.dumps(line) + "\n").encode())
        self.file.flush()

    def epoch_end(self, state: State, logger: Logger) -> None:
        if dist.get_global_rank() == 0:
            line = {
                "launch": self.attempt,
                "pass": int(state.timestamp.epoch) - 1,
                "batches": int(state.timestamp.batch),
                "generations": [generation.state_dict() for generation in self.dataset.snapshot.generations],
            }
            append_line(self.path.parent / "passes.jsonl", line)

    def sync(self) -> None:
        """Force the lines to disk."""
        if self.file is not None:
            sync_file(self.file)

    def close(self, state: State, logger: Logger) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


def start_attempt(save_folder: Path, facts: dict[str, Any]) -> int:
    """Record a start of the run in ``launches.jsonl`` and return its number, 1 for the first. Rank 0 writes."""

    def record() -> int:
        path = save_folder / "launches.jsonl"
        save_folder.mkdir(parents=True, exist_ok=True)
        number = (path.read_bytes().count(b"\n") if path.exists() else 0) + 1
        append_line(path, {"launch": number, **facts})
        return number

    return from_rank_zero(record)
