"""Data for the tests of reading."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers.growing import arrive


@pytest.fixture
def half_downloaded(raw_sample: Path, tmp_path: Path) -> Path:
    """A copy of the sample with 10 of its 26 images there."""
    raw = tmp_path / "raw"
    (raw / "images").mkdir(parents=True)
    os.link(raw_sample / "openspatial.json", raw / "openspatial.json")
    arrive(raw_sample, raw, 10)
    return raw
