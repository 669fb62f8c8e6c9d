"""The built-in sample, converted once for all tests that need a data set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from theworld.config.load import load_config
from theworld.config.schema import Config

# Many small processes on few cores: one thread each, as the composer launcher does for its ranks.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).parents[1]
SMOKE_YAML = str(ROOT / "yamls" / "smoke.yaml")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data", help="folder with SpatialRGPT-Bench's questions.jsonl and answers-MODEL.jsonl")


@pytest.fixture(scope="session")
def raw_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``openspatial.json`` and ``images/``: 26 small entries, all images there."""
    from theworld.synthetic import generate

    folder = tmp_path_factory.mktemp("raw")
    generate(folder, samples=26, seed=7, size=256)
    return folder


@pytest.fixture(scope="session")
def mds_sample(raw_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as an MDS data set of several shards."""
    from theworld.data.shards.convert import convert

    out = tmp_path_factory.mktemp("converted") / "mds"
    convert(smoke_config(raw_sample, out).convert)
    return out


def smoke_config(raw: Path, mds: Path, *overrides: str) -> Config:
    """``yamls/smoke.yaml`` on this data."""
    return load_config(
        [
            SMOKE_YAML,
            f"convert.json={raw / 'openspatial.json'}",
            f"convert.images={raw / 'images'}",
            f"convert.out={mds}",
            "convert.size_limit=100kb",
            *overrides,
        ]
    )


def run_config(raw: Path, mds: Path, folder: Path, *overrides: str) -> Config:
    """A small run on this data, in batches of 4: its save folder and its cache are in ``folder``."""
    return smoke_config(
        raw,
        mds,
        f"save_folder={folder / 'run'}",
        f"train_loader.dataset.local={folder / 'cache'}",
        "global_train_batch_size=4",
        "device_train_microbatch_size=2",
        *overrides,
    )
