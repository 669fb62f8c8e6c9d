"""What a run writes down about itself: the resolved configuration, the facts of each start."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from composer.utils import dist
from omegaconf import OmegaConf

from theworld.checkpoint.on_disk import Checkpoint
from theworld.config.schema import Config
from theworld.data.batches.expectation import progress_facts
from theworld.files import read_json_lines, write_text
from theworld.plain_text import without_secrets
from theworld.train.data import TrainData

log = logging.getLogger(__name__)


def attempt_facts(
    config: Config, data: TrainData, resume: Checkpoint | None, lost: int, held_out: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """What ``launches.jsonl`` records of a start.

    Args:
        config: of the run.
        data: to train on.
        resume: what the start goes on from.
        lost: steps that were done before and are not in ``resume``.
        held_out: of the evaluation sets by name (:func:`~theworld.train.eval_series.eval_facts`); none has none.
    """
    facts = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "resumed_from": resume.path.name if resume else None,
        "resumed_batch": resume.batch if resume else 0,
        "steps_lost": lost,
        "ranks": dist.get_world_size(),
        "samples": data.dataset.snapshot.samples,
        "expected_samples": config.train_loader.expected_samples,
        **progress_facts(config, data.dataset.snapshot),
        **({"eval": held_out[""]} if "" in held_out else {"evals": held_out} if held_out else {}),
    }
    return without_secrets(facts)


def earlier_starts(save_folder: Path) -> list[dict[str, Any]]:
    """The lines of ``launches.jsonl``; none if it is damaged."""
    path = save_folder / "launches.jsonl"
    try:
        return read_json_lines(path)
    except ValueError as error:
        log.warning("%s: damaged (%s); it is not known what earlier starts saw", path, error)
        return []


def starts_so_far(save_folder: Path) -> tuple[int, int]:
    """How many starts the run has had, this one included, and how many steps the stops between them have lost."""
    starts = earlier_starts(save_folder)
    return len(starts), sum(int(start.get("steps_lost", 0)) for start in starts)


def write_config(config: Config, save_folder: Path, kept: dict[str, Any] | None = None) -> None:
    """``config.yaml`` in the save folder: the resolved configuration, secrets left out. Rank 0 writes.

    Args:
        config: of the run.
        save_folder: of the run.
        kept: settings of ``train_loader.dataset`` that are in force instead of the configuration's.
    """
    if dist.get_global_rank() != 0:
        return
    dataset = replace(config.train_loader.dataset, **(kept or {}))
    config = replace(config, train_loader=replace(config.train_loader, dataset=dataset))
    save_folder.mkdir(parents=True, exist_ok=True)
    write_text(save_folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(without_secrets(asdict(config)))))
