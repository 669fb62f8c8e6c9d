"""A data set whose images arrive little by little."""

from __future__ import annotations

import os
from pathlib import Path

from tests.conftest import smoke_config
from theworld.config.schema import Config


def flat(batches: list[list[str]]) -> list[str]:
    return [name for batch in batches for name in batch]


def arrive(source: Path, raw: Path, count: int) -> None:
    for image in sorted((source / "images").iterdir())[:count]:
        target = raw / "images" / image.name
        if not target.exists():
            os.link(image, target)


def config_on(raw: Path, tmp_path: Path, *overrides: str) -> Config:
    cache = f"train_loader.dataset.local={tmp_path / 'cache'}"
    return smoke_config(raw, tmp_path / "mds", cache, "global_train_batch_size=4", *overrides)
