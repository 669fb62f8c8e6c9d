"""Messages of ``role`` and ``content``, as chat templates take them: SPAR-7M, SpatialQA, what trl and ms-swift read.

A content is a text or a list of parts; images stand beside the messages or in the parts.
"""

from __future__ import annotations

from typing import Any

from theworld.data.entries.check_entry import BadEntry
from theworld.data.entries.formats.entry_parts import image_names, images_of, is_image, parts_of, shown_id, turns_of
from theworld.data.entries.formats.entry_record import NO_IMAGE, Record
from theworld.data.entries.formats.llava import record_of


def read(raw: dict[str, Any], unit: str) -> Record:
    turns = turns_of(raw, "messages")
    parts = [part for part in parts_of(raw["messages"]) if is_image(part) or may_name_image(part)]
    images = image_names(raw) or [name for part in parts for name in image_names(part)]
    if not images and any(map(is_image, parts)):
        raise BadEntry(shown_id(raw), NO_IMAGE, "an image among the messages has no path")
    return record_of(raw, turns, unit, images or images_of(raw, turns))


def may_name_image(part: Any) -> bool:
    """Whether a part says nothing of its kind."""
    return isinstance(part, dict) and part.get("type") is None
