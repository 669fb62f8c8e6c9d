"""Two short runs of the trainer: with a world, and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import smoke_config

SETTINGS = ("global_train_batch_size=8", "train_loader.num_workers=0", "max_duration=3ba", "optimizer.lr=1.0e-2")


def trained(raw: Path, mds: Path, folder: Path, *settings: str) -> Path:
    """The save folder of a run of three batches."""
    from theworld.train.run import train

    save_folder = folder / "run"
    where = (f"save_folder={save_folder}", f"train_loader.dataset.local={folder / 'cache'}")
    assert train(smoke_config(raw, mds, *where, *SETTINGS, *settings)) == 0
    return save_folder


@pytest.fixture(scope="session")
def world_run(raw_sample: Path, mds_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(raw_sample, mds_sample, tmp_path_factory.mktemp("with_world"))


@pytest.fixture(scope="session")
def plain_run(raw_sample: Path, mds_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(raw_sample, mds_sample, tmp_path_factory.mktemp("without_world"), "model.enable_world=false")
