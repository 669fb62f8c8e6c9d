"""The form of SpatialRGPT-Bench (a8cheng/SpatialRGPT-Bench): ``image_info, bbox, rle, conversations, qa_info``, which
``datasets`` gives as the text of Python literals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from theworld.data.entries.check_entry import BadEntry
from theworld.data.entries.formats.entry_parts import shown_id, turns_of
from theworld.data.entries.formats.entry_record import Record
from theworld.data.entries.formats.llava import record_of
from theworld.data.entries.literals import literal

LITERALS = ("image_info", "bbox", "rle", "conversations", "qa_info")


def read(raw: dict[str, Any], unit: str) -> Record:
    read_raw = dict(raw)
    for key in LITERALS:
        try:
            read_raw[key] = literal(raw.get(key))
        except (ValueError, RecursionError) as error:
            raise BadEntry(
                shown_id(raw), "a text is not the literal that it should be", f"{key}: {error}"[:255]
            ) from error
    info = read_raw["qa_info"]
    category = info.get("category") if isinstance(info, Mapping) else None
    if isinstance(category, str):
        read_raw["category"] = category
    return record_of(read_raw, turns_of(read_raw, "conversations"), unit)
