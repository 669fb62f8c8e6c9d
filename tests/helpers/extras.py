"""Marks of the tests that need an extra which the fast tests run without."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

NEEDS_BITSANDBYTES = [
    pytest.mark.slow,
    pytest.mark.qlora,
    pytest.mark.skipif(
        find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: pip install 'theworld[qlora]'"
    ),
]
"""For ``pytestmark`` and ``pytest.param``; a function takes :func:`needs_bitsandbytes`."""


def needs_bitsandbytes(test: Callable[..., Any]) -> Callable[..., Any]:
    """The decorator with the same marks."""
    for mark in NEEDS_BITSANDBYTES:
        test = mark(test)
    return test
