"""What a run writes down about itself: the resolved configuration, the facts of each start."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from composer.utils import dist
from omegaconf import OmegaConf

from theworld.checkpoint.on_disk import Checkpoint
from theworld.config.schema import Config
from theworld.files import write_text
from theworld.plain_text import without_secrets
from theworld.train.data import TrainData


def attempt_facts(config: Config, data: TrainData, resume: Checkpoint | None) -> dict[str, Any]:
    """What ``launches.jsonl`` records of a start."""
    facts = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "resumed_from": resume.path.name if resume else None,
        "resumed_batch": resume.batch if resume else 0,
        "ranks": dist.get_world_size(),
        "samples": data.dataset.snapshot.samples,
        "fingerprint": data.dataset.snapshot.fingerprint,
    }
    return without_secrets(facts)


def write_config(config: Config, save_folder: Path) -> None:
    """``config.yaml`` in the save folder: the resolved configuration, secrets left out."""
    if dist.get_global_rank() != 0:
        return
    save_folder.mkdir(parents=True, exist_ok=True)
    write_text(save_folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(without_secrets(asdict(config)))))
