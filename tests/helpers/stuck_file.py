"""A file that nobody can read for now: whoever opens it waits, so that a program is stopped where a test wants it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def stuck(path: Path) -> Iterator[None]:
    """While this is open there is a pipe without a writer in the file's place; who waits for it then waits for ever."""
    aside = path.with_name(f".{path.name}.aside")
    path.rename(aside)
    os.mkfifo(path)
    try:
        yield
    finally:
        aside.replace(path)
