"""Marks of the tests that need optional packages. The others run without these: what is installed is imported at each
start, by Composer, transformers and peft, whether it is used or not."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest


def marks_of_extra(extra: str, *packages: str) -> list[pytest.MarkDecorator]:
    """For ``pytestmark`` and ``pytest.param``.

    Args:
        extra: its name in pyproject.toml.
        packages: what is imported of it.
    """
    missing = any(find_spec(package) is None for package in packages)
    reason = f"{' and '.join(packages)} not installed: make install EXTRAS=dev,{extra}"
    return [pytest.mark.slow, pytest.mark.extra, pytest.mark.skipif(missing, reason=reason)]


def needs_extra(extra: str, *packages: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The decorator with the same marks."""

    def mark_all(test: Callable[..., Any]) -> Callable[..., Any]:
        for mark in marks_of_extra(extra, *packages):
            test = mark(test)
        return test

    return mark_all


FOUR_BITS = ("qlora", "bitsandbytes")
