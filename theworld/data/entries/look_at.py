"""What is in a file that somebody has brought: its keys, what they hold, and whether the converter reads it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from theworld.data.entries.check_entry import BadEntry, Unreadable, image_id
from theworld.data.entries.columns import ABOUT, columns_with, of_entry
from theworld.data.entries.formats.entry_format import BETWEEN, OPENSPATIAL
from theworld.data.entries.formats.entry_parts import image_names
from theworld.data.entries.formats.format_table import format_of, make_format
from theworld.data.entries.read_source import read_source
from theworld.data.entries.stream import BrokenJson
from theworld.errors import UserError

SHAPES_SHOWN, KEYS_SHOWN, DEEPEST, LONGEST = 3, 6, 3, 60
SHAPES_KEPT = 1000
"""Of a key; where each entry has keys of its own inside, there would be as many as entries."""
COLUMNS = of_entry(columns_with(**{ABOUT: True}))


@dataclass
class Key:
    """A key at the top of the entries.

    Attributes:
        count: entries that have it.
        shapes: what its values are -> how many.
        example: of the first value, the beginning as JSON.
    """

    count: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    example: str = ""


@dataclass
class Look:
    """What was found.

    Attributes:
        entries: how many were looked at.
        more: whether the file has more.
        keys: by name, in the order of their first appearance.
        forms: format of an entry -> how many; "" for none that is known.
        usable: entries that the converter would take, each in its own format.
        several, text_alone: of these, those of several images, and of none.
        refused: reason -> how many it would not take.
        images: names of image files that the entries have, by which they can be looked for.
        fault: the line on a file that is broken at some place.
    """

    entries: int = 0
    more: bool = False
    keys: dict[str, Key] = field(default_factory=dict)
    forms: Counter[str] = field(default_factory=Counter)
    usable: int = 0
    several: int = 0
    text_alone: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    images: list[str] = field(default_factory=list)
    fault: str | None = None


def look_at(path: Path, most: int | None) -> Look:
    """Look at the first entries of a file.

    Args:
        path: whatever :func:`~theworld.data.entries.read_source.read_source` reads.
        most: entries; None: all.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    found = Look()
    try:
        for raw in read_source(path):
            if most is not None and found.entries == most:
                found.more = True
                break
            add(found, raw)
    except BrokenJson as broken:
        found.fault = str(broken)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    return found


def add(found: Look, raw: Any) -> None:
    """Count one entry."""
    found.entries += 1
    form = format_of(raw)
    found.forms[form] += 1
    if isinstance(raw, Unreadable) or form:
        try:
            columns = COLUMNS if form != OPENSPATIAL else ()
            image = make_format(form or OPENSPATIAL).parse(raw, columns, keep_masks=False).image
            found.usable += 1
            found.several += BETWEEN in image
            found.text_alone += not image
        except BadEntry as bad:
            found.refused[bad.reason] += 1
    if not isinstance(raw, dict):
        return
    found.images += image_names(raw)
    for name, value in raw.items():
        key = found.keys.setdefault(str(name), Key())
        key.count += 1
        shape = shape_of(value)
        key.shapes[shape if shape in key.shapes or len(key.shapes) < SHAPES_KEPT else "something else"] += 1
        key.example = key.example or beginning(value)


def shape_of(value: Any, depth: int = 0) -> str:
    """What a value is, in a few words."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true or false"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, (str, bytes)):
        return "text" if isinstance(value, str) else "bytes"
    if isinstance(value, Mapping):
        if depth == DEEPEST:
            return "{...}"
        parts = [f"{key}: {shape_of(one, depth + 1)}" for key, one in list(value.items())[:KEYS_SHOWN]]
        return "{" + ", ".join([*parts, "..."] if len(value) > KEYS_SHOWN else parts) + "}"
    if not isinstance(value, list):
        return type(value).__name__
    if not value or depth == DEEPEST:
        return "list of ..." if value else "empty list"
    shapes = list(dict.fromkeys(shape_of(one, depth + 1) for one in value[:100]))
    if shapes == ["number"] and depth:
        return f"[{len(value)} numbers]"
    return f"list of {' or '.join(shapes[:2])}"


def beginning(value: Any) -> str:
    """A value as JSON, as far as a line has room."""
    text = json.dumps(value, ensure_ascii=False, default=lambda other: f"<{type(other).__name__}>")
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def there_among(names: Iterable[str], folder: Path, stems: set[str]) -> tuple[int, int]:
    """How many of the images are there, and how many names lead out of the folder.

    Args:
        names: from the file: a path below the folder, or a name with or without its suffix.
        folder: of the images.
        stems: names without suffix of all files below it.
    """
    there, outside = 0, 0
    for name in names:
        path = Path(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            outside += 1
        elif len(path.parts) > 1:
            there += (folder / path).is_file()
        else:
            there += image_id(name) in stems
    return there, outside
