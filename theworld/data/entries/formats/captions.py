"""Pictures with a caption (CC3M, LLaVA-595K and the like): ``image, caption`` become one question and its answer."""

from __future__ import annotations

from typing import Any

from theworld.data.entries.check_entry import BadEntry
from theworld.data.entries.formats.entry_parts import image_names, shown_id
from theworld.data.entries.formats.entry_record import NO_IMAGE, Record
from theworld.data.entries.formats.llava import record_of

QUESTION = "Describe this image."


def read(raw: dict[str, Any], unit: str) -> Record:
    caption = next((raw[key] for key in ("caption", "captions", "text") if raw.get(key)), None)
    if isinstance(caption, list):
        caption = caption[0]
    if not isinstance(caption, str) or not caption.strip():
        raise BadEntry(shown_id(raw), "entry has no caption", "")
    if not image_names(raw) and not any(raw.get(key) for key in ("image", "images")):
        raise BadEntry(shown_id(raw), NO_IMAGE, f"it has {', '.join(map(repr, raw))}"[:255])
    turns = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": caption.strip()}]
    return record_of(raw, turns, unit)
