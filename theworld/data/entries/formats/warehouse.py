"""NVIDIA's PhysicalAI-Spatial-Intelligence-Warehouse: ``image, conversations, rle`` and no boxes; each ``<mask>`` of a
question has a mask, and the region that is drawn is the box round it.
"""

from __future__ import annotations

from typing import Any

from theworld.data.entries.check_entry import BadEntry
from theworld.data.entries.formats.entry_parts import shown_id, turns_of
from theworld.data.entries.formats.entry_record import Record
from theworld.data.entries.formats.llava import record_of


def read(raw: dict[str, Any], unit: str) -> Record:
    if not isinstance(raw.get("rle"), list):
        raise BadEntry(shown_id(raw), "entry lacks a key", "rle")
    boxless = {key: value for key, value in raw.items() if key != "bbox"}
    return record_of(boxless, turns_of(raw, "conversations"), "pixels")
