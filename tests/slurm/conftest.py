"""A folder to submit jobs from."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.slurm.cluster import Cluster, running_cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Daemons of a test's own; files whose tests may share them have a fixture for the whole file."""
    # Not pytest's folder: the names of sockets must be short.
    with running_cluster(Path(tempfile.mkdtemp(prefix="slurm"))) as running:
        yield running


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like the project's, without the user's own settings."""
    for name in ("recipes", "slurm", "yamls", "convert"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("site.env", "__pycache__"))
    (tmp_path / "logs").mkdir()
    return tmp_path
