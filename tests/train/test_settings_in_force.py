"""What is shuffled otherwise on a resume is in force from the next pass on, and is said; config.yaml has what is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.conftest import run_config
from theworld.config.schema import Config
from theworld.errors import EXIT_DONE
from theworld.train.run import train


def config_of(raw: Path, mds: Path, folder: Path, *overrides: str) -> Config:
    small = ("train_loader.num_workers=0", "model.freeze.language=true", "save_interval=100ba")
    return run_config(raw, mds, folder, *small, *overrides)


def in_force(folder: Path, key: str) -> int:
    return OmegaConf.select(OmegaConf.load(folder / "run" / "config.yaml"), f"train_loader.dataset.{key}")


@pytest.mark.slow
def test_the_pass_keeps_its_own_until_it_ends(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = ("train_loader.dataset.shuffle_seed=5", "train_loader.dataset.num_canonical_nodes=2")
    other = ("train_loader.dataset.shuffle_seed=6", "train_loader.dataset.num_canonical_nodes=4")
    assert train(config_of(raw_sample, mds_sample, tmp_path, *first, "max_duration=3ba")) == EXIT_DONE
    said = "train_loader.dataset: until the pass ends it keeps shuffle_seed=5 (not 6), num_canonical_nodes=2 (not 4)"
    with caplog.at_level("INFO"):
        config = config_of(raw_sample, mds_sample, tmp_path, *other, "max_duration=5ba")
        before = asdict(config)
        assert train(config) == EXIT_DONE
    assert caplog.text.count(said) == 1
    assert asdict(config) == before
    assert (in_force(tmp_path, "shuffle_seed"), in_force(tmp_path, "num_canonical_nodes")) == (5, 2)
    # Seven batches are the pass; the eighth is of the next one.
    assert train(config_of(raw_sample, mds_sample, tmp_path, *other, "max_duration=8ba")) == EXIT_DONE
    assert (in_force(tmp_path, "shuffle_seed"), in_force(tmp_path, "num_canonical_nodes")) == (6, 4)
