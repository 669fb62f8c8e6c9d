"""LLaVA's form, which most sets have: ``image`` or ``images``, ``conversations`` of ``from`` and ``value``.

https://github.com/haotian-liu/LLaVA/blob/main/docs/Finetune_Custom_Data.md; regions are what others have added to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theworld.data.entries.formats.entry_parts import (
    boxes_by_image,
    boxes_of,
    entry_id,
    framed,
    images_of,
    lists_boxes,
    picture_size,
    shown_id,
    turns_of,
)
from theworld.data.entries.formats.entry_record import Record, Turns
from theworld.data.entries.formats.region_text import name_regions

SOURCE_KEYS = ("source", "data_source", "dataset", "dataset_name")
CATEGORY_KEYS = ("category", "question_type", "task", "type")


def read(raw: dict[str, Any], unit: str) -> Record:
    return record_of(raw, turns_of(raw, "conversations"), unit)


def record_of(raw: dict[str, Any], turns: Turns, unit: str, images: Sequence[str] | None = None) -> Record:
    """A record of an entry whose turns are known already; images and regions are found as in all these sets.

    Raises:
        BadEntry: an image that it has is not named, or its regions cannot be read.
    """
    paths = images_of(raw, turns) if images is None else list(images)
    raw, owners = boxes_by_image(raw, len(paths))
    named = name_regions(shown_id(raw), turns, lambda: boxes_of(raw))
    if named.places and not lists_boxes(raw):
        unit = "pixels"  # they are those of its masks
    boxes, size = framed(named.boxes, unit, picture_size(raw)) if named.boxes else ([], [])
    masks = raw.get("rle")
    of_masks = (
        isinstance(masks, list) and len(named.places) == len(boxes) and max(named.places, default=-1) < len(masks)
    )
    kept = [masks[place] for place in named.places] if isinstance(masks, list) and of_masks else []
    source, category = first_text(raw, SOURCE_KEYS), first_text(raw, CATEGORY_KEYS)
    box_images = [owners[place] for place in named.places] if owners else []
    return Record(paths, named.turns, boxes, entry_id(raw), size, kept, source, category, box_images)


def first_text(raw: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """The text under the first of some keys that has one."""
    return next((value for key in keys if isinstance(value := raw.get(key), str)), "")
