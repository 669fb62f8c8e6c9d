"""Pictures that come inside of entries, as Parquet and the Hub have them: each goes to a file once, and the entry gets
its path, so that from there on they are as all others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theworld.data.entries.check_entry import BadEntry
from theworld.data.entries.formats.entry_parts import IMAGE_KEYS, shown_id
from theworld.data.entries.headers import image_type
from theworld.files import temporary_name

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
HASH_DIGITS = 32


@dataclass(frozen=True)
class PictureSpool:
    """A folder of pictures, each named by the hash of its bytes.

    Attributes:
        folder: made when it is needed.
        most: pictures that an entry may have; those of one with more are not written.
    """

    folder: Path
    most: int

    def take(self, raw: Any) -> Any:
        """The entry with paths in place of its pictures; these are written if they may become a sample.

        Raises:
            BadEntry: a picture is neither JPEG, PNG nor WebP.
            OSError: it cannot be written.
        """
        if not isinstance(raw, dict):
            return raw
        held = {key: raw[key] for key in IMAGE_KEYS if holds_picture(raw.get(key))}
        if not held:
            return raw
        pictures = {key: value if isinstance(value, list) else [value] for key, value in held.items()}
        whole = max(map(len, pictures.values())) <= self.most
        paths = {key: [self._path(raw, one, whole) for one in values] for key, values in pictures.items()}
        return {**raw, **paths}

    def _path(self, raw: dict[str, Any], value: Any, keep: bool) -> Any:
        data = picture_bytes(value)
        if data is None:
            return value
        kind = image_type(data)
        if kind is None:
            raise BadEntry(shown_id(raw), "entry's picture is of a kind that is not read", f"starts with {data[:8]!r}")
        digest = hashlib.sha256(data).hexdigest()[:HASH_DIGITS]
        path = f"{digest[:2]}/{digest}{SUFFIXES[kind]}"
        if keep:
            write_once(self.folder / path, data)
        return path


def write_once(path: Path, data: bytes) -> None:
    """Write a file that is there in whole or not at all, unless it is there; what it holds follows from its name."""
    try:
        if path.stat().st_size == len(data):
            return
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    temporary.write_bytes(data)
    os.replace(temporary, path)


def picture_bytes(value: Any) -> bytes | None:
    """A picture's bytes: the value itself, or ``bytes`` of a mapping as ``datasets`` has it; None if it is none."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return value if isinstance(value, bytes) and value else None


def holds_picture(value: Any) -> bool:
    """Whether a value is a picture, or a list with one."""
    return any(picture_bytes(one) is not None for one in (value if isinstance(value, list) else [value]))
