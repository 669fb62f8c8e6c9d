"""The built-in sample, converted once for all tests that need a data set."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from theworld.config.load import load_config
from theworld.config.schema import Config

# Many small processes on few cores: one thread each, as the composer launcher does for its ranks.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).parents[1]
SMOKE_YAML = str(ROOT / "yamls" / "smoke.yaml")


_segments: list[Any] = []
"""Shared memory that Streaming holds since the test began."""


@pytest.fixture(autouse=True)
def let_go_of_segments() -> Iterator[None]:
    """Give back the shared memory of data sets that a test has left open: each opening looks through that of all which
    are open on the machine, and Streaming itself lets go of none before the process ends."""
    note_segments()
    _segments.clear()
    yield
    for memory in _segments:
        if memory.shm.buf is not None:  # else it is closed, and its name may be another process's
            with suppress(BufferError):  # an iterator that is still there looks into it
                memory.cleanup()
            atexit.unregister(memory.cleanup)


@pytest.fixture(autouse=True)
def give_signals_back() -> Iterator[None]:
    """Tests call main functions and the loaders' workers in this process, which take over or ignore the stop signals;
    what is ignored, programs of later tests would inherit."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def note_segments() -> None:
    """From now on write down what is attached; nothing to do where Streaming is not imported yet."""
    shared = sys.modules.get("streaming.base.shared.memory")
    if shared is None or hasattr(shared.SharedMemory, "is_noted"):
        return
    begin = shared.SharedMemory.__init__

    def noted(memory: Any, *arguments: Any, **settings: Any) -> None:
        begin(memory, *arguments, **settings)
        _segments.append(memory)

    shared.SharedMemory.__init__ = noted
    shared.SharedMemory.is_noted = True


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
