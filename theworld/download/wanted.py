"""Which images are wanted: the ids of the JSON or of a list, read once and kept as a plain file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from theworld.data.entries.check_entry import BadEntry, check_filename, id_key, image_id
from theworld.data.entries.repeated_ids import SeenKeys
from theworld.data.entries.source import open_source
from theworld.data.entries.stream import BrokenJson, read_entries
from theworld.download.download_settings import Settings
from theworld.errors import UserError
from theworld.files import atomic_write, read_json, write_json

BLOCK = 4096
LONGEST_ID = 200
LIST_LINE = re.compile(r"(?:(?P<split>train|validation|test)/)?(?P<id>[0-9A-Za-z_-]+)(?:\.jpg)?")


@dataclass
class Summary:
    """What reading the ids found.

    Attributes:
        count: different ids.
        repeated: ids named again.
        unusable: entries whose file name cannot be an image's.
        broken: the line to show if the JSON is not JSON to its end.
    """

    count: int = 0
    repeated: int = 0
    unusable: int = 0
    broken: str | None = None


class Wanted:
    """The wanted images in the order they were named; n of them.

    Attributes:
        path: file of their names, ``split/id``, one a line; its own name tells the state of the list or JSON.
        summary: counts.
        keys: (n,) uint64, :func:`~theworld.data.entries.check_entry.id_key` of the ids.
    """

    def __init__(self, path: Path, summary: Summary) -> None:
        self.path, self.summary = path, summary
        self.keys = np.zeros(summary.count, np.uint64)
        for number, name in enumerate(self.names()):
            self.keys[number] = id_key(name.rpartition("/")[2])

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def digest(self) -> str:
        """:func:`digest_of` what was read."""
        return self.path.stem.removeprefix("ids-")

    def names(self) -> Iterator[str]:
        """``split/id`` of each, read from the file."""
        with open(self.path, encoding="utf-8", newline="\n") as lines:
            for line in lines:
                yield line.rstrip("\n")


def identity_of(settings: Settings) -> tuple[dict[str, Any], Callable[[], Path]]:
    """What tells one state of the list or JSON from another, and what gives the local file.

    Raises:
        UserError: the Hub does not give the JSON.
    """
    if settings.list is not None:
        path = settings.list
        status = path.stat()
        return {"list": str(path.resolve()), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}, lambda: path
    source = open_source(settings.convert.json, settings.convert.json_cache)
    return source.identity, source.fetch


def digest_of(identity: dict[str, Any]) -> str:
    """A short name for a state of the list or JSON."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def cache_paths(settings: Settings, identity: dict[str, Any]) -> tuple[Path, Path]:
    """Files for the names and for their summary."""
    digest = digest_of(identity)
    return settings.state / f"ids-{digest}.txt", settings.state / f"ids-{digest}.json"


def known_wanted(settings: Settings) -> Wanted | None:
    """The wanted images if they were read before; costs no pass over the JSON."""
    names, summary = cache_paths(settings, identity_of(settings)[0])
    stored = read_json(summary)
    return Wanted(names, Summary(**stored)) if stored is not None and names.is_file() else None


def read_wanted(settings: Settings, progress: Callable[[int, int], None]) -> Wanted:
    """The wanted images, from the cache or by reading the list or the JSON.

    Args:
        settings: where to look.
        progress: called now and then with bytes read and ids found.

    Raises:
        UserError: no id is there, or a line of the list is not an id.
    """
    known = known_wanted(settings)
    if known is not None:
        return known
    identity, fetch = identity_of(settings)
    names, summary_path = cache_paths(settings, identity)
    for old in settings.state.glob("ids-*"):
        old.unlink()
    summary = Summary()
    path = fetch()
    found = read_list(path) if settings.list is not None else read_json_ids(path, summary, progress)
    seen = SeenKeys()
    with atomic_write(names) as file:
        for block in in_blocks(found):
            new = seen.add(np.array([id_key(name.rpartition("/")[2]) for name in block], np.uint64))
            file.writelines(f"{name}\n".encode() for name in compress(block, new))
            summary.count += int(new.sum())
    summary.repeated = seen.repeated
    if not summary.count:
        raise UserError(summary.broken or f"{path}: names no image")
    write_json(summary_path, asdict(summary))
    return Wanted(names, summary)


def in_blocks(names: Iterator[str]) -> Iterator[list[str]]:
    block: list[str] = []
    for name in names:
        block.append(name)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


def read_list(path: Path) -> Iterator[str]:
    """Names in a file of the official downloader's format.

    Raises:
        UserError: a line is neither id nor comment.
    """
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            match = LIST_LINE.fullmatch(text)
            if not match or len(match["id"]) > LONGEST_ID:
                raise UserError(
                    f"download.list: {path}, line {number}: {text[:80]!r} is not an id; expected train/<id>"
                )
            yield f"{match['split'] or 'train'}/{match['id']}"


def read_json_ids(path: Path, summary: Summary, progress: Callable[[int, int], None]) -> Iterator[str]:
    """Names of the images that the JSON's entries name; what cannot be one is counted."""
    try:
        for entry in read_entries(path, lambda read: progress(read, summary.count)):
            filename = entry.get("filename") if isinstance(entry, dict) else None
            try:
                name = check_filename(filename)
            except BadEntry:
                summary.unusable += 1
                continue
            if len(name.encode("utf-8")) > LONGEST_ID:
                summary.unusable += 1
                continue
            yield f"train/{image_id(name)}"
    except BrokenJson as broken:
        summary.broken = str(broken)
