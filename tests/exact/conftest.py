"""A larger and smaller-pictured sample than the other tests', generated once."""

from __future__ import annotations

from pathlib import Path

import pytest

SAMPLES = 150


@pytest.fixture(scope="session")
def many_samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``openspatial.json`` and 150 images."""
    from theworld.synthetic import generate

    folder = tmp_path_factory.mktemp("many")
    generate(folder, samples=SAMPLES, seed=5, size=160, workers=1)
    return folder


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the test's own with a short name: sockets below it must not become too long."""
    return tmp_path_factory.mktemp("run")
