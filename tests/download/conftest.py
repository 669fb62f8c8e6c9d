"""The bucket and the folder that most tests of the downloader use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket import Place, objects
from s3_double import S3Double


@pytest.fixture
def double(request: pytest.FixtureRequest) -> Iterator[S3Double]:
    """A bucket with as many photos as the test file's ``COUNT`` says."""
    with S3Double(objects(request.module.COUNT)) as server:
        yield server


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, double: S3Double) -> Place:
    """A folder for them, and a JSON that names them all."""
    return Place(tmp_path, double.endpoint, request.module.COUNT)
