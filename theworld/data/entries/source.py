"""Where the conversations come from: a file, or one on the Hugging Face Hub, downloaded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theworld.data.entries.hub_json import SCHEME, HubFile


@dataclass(frozen=True)
class JsonSource:
    """The conversations file.

    Attributes:
        identity: tells one state of it from another.
        fetch: gives the local file, downloading it if need be; called only when it has to be parsed.
    """

    identity: dict[str, Any]
    fetch: Callable[[], Path]


def open_source(location: str, cache: str | None) -> JsonSource:
    """The conversations at a path or an hf:// URL.

    Args:
        location: ``convert.json``.
        cache: ``convert.json_cache``: folder for a download; None: the system's temporary folder ($TMPDIR).

    Raises:
        UserError: the Hub does not give the file; the line says what to do.
    """
    if location.startswith(SCHEME):
        file = HubFile.from_url(location, cache)
        return JsonSource(file.identity(), file.fetch)
    path = Path(location)
    status = path.stat()
    identity = {"path": str(path.resolve()), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    return JsonSource(identity, lambda: path)
