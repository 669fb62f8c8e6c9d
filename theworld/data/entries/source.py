"""Where the conversations come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class JsonSource:
    """The conversations file.

    Attributes:
        identity: tells one state of it from another.
        fetch: gives the local file, downloading it if need be.
    """

    identity: dict[str, Any]
    fetch: Callable[[], Path]


def open_source(location: str, cache: str | None) -> JsonSource:
    """The conversations at a path.

    Args:
        location: ``convert.json``.
        cache: ``convert.json_cache``.
    """
    path = Path(location)
    status = path.stat()
    identity = {"path": str(path.resolve()), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    return JsonSource(identity, lambda: path)
