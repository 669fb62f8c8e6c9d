"""A folder to submit jobs from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like the project's, without the user's own settings."""
    for name in ("recipes", "slurm", "yamls", "convert"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("site.env", "__pycache__"))
    (tmp_path / "logs").mkdir()
    return tmp_path
