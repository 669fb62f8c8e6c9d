"""A Hub of each test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hub_double import HubDouble


@pytest.fixture
def hub() -> Iterator[HubDouble]:
    with HubDouble() as double:
        yield double
