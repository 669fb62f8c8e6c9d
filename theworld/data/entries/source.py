"""Where the conversations come from: a file, a folder of files, a file on the Hugging Face Hub, downloaded once, or a
data set that is streamed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theworld.data.entries.hub_json import SCHEME, HubFile
from theworld.data.entries.read_source import identity_of
from theworld.data.entries.streamed_set import SCHEME as STREAMED
from theworld.data.entries.streamed_set import StreamedSet


@dataclass(frozen=True)
class JsonSource:
    """The conversations file, or a folder of such files.

    Attributes:
        identity: tells one state of it from another.
        fetch: gives it as it lies here, downloading it if need be; called only when it has to be parsed.
    """

    identity: dict[str, Any]
    fetch: Callable[[], Path]


def open_source(location: str, cache: str | None) -> JsonSource:
    """The conversations at a path, an hf:// URL, or in a data set (``datasets:OWNER/NAME``).

    Args:
        location: ``convert.json``.
        cache: ``convert.json_cache``: folder for a download; None: the system's temporary folder ($TMPDIR).

    Raises:
        UserError: the Hub does not give the file; the line says what to do.
    """
    if location.startswith(SCHEME):
        file = HubFile.from_url(location, cache)
        return JsonSource(file.identity(), file.fetch)
    if location.startswith(STREAMED):
        wanted = StreamedSet.from_url(location).pinned()
        return JsonSource(wanted.identity(), lambda: wanted.note(cache))
    path = Path(location)
    return JsonSource(identity_of(path), lambda: path)
