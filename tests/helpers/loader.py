"""The loader of the smoke configuration, as the trainer builds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import SMOKE_YAML
from theworld.config.load import load_config
from theworld.config.schema import Config
from theworld.data.cache.latent_store import LatentWish
from theworld.model.build import load_processor
from theworld.train.data import TrainData, build_data


def smoke_on(remote: str | Path, cache: str | Path | None, *overrides: str) -> Config:
    """``yamls/smoke.yaml`` on a converted data set."""
    local = [f"train_loader.dataset.local={cache}"] if cache is not None else []
    return load_config([SMOKE_YAML, f"convert.out={remote}", "global_train_batch_size=4", *local, *overrides])


def open_data(config: Config, growing: bool = True, wish: LatentWish | None = None) -> TrainData:
    processor = load_processor(config.model)
    return build_data(config.train_loader, processor, config.global_train_batch_size, config.seed, growing, wish)


def ids_of(batch: dict[str, Any]) -> list[str]:
    """Ids of the data set's samples in the batch; those that only fill it up are left out."""
    return [
        name for name, reason in zip(batch["sample_ids"], batch["skipped"], strict=True) if reason != "padding sample"
    ]


def read_pass(data: TrainData) -> list[str]:
    """All ids of one pass, in order."""
    return [name for batch in data.spec.dataloader for name in ids_of(batch)]
