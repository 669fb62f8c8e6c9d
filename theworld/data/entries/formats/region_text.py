"""Regions in texts, however they are named, to ``<mask>`` in questions and numbers of the own question in answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from theworld.data.entries.check_entry import MASK, BadEntry
from theworld.data.entries.formats.entry_parts import are_numbers
from theworld.data.entries.formats.entry_record import Turns

NUMBERED = re.compile(r"Region \[(\d{1,9})\]|\[Region (\d{1,9})\]")
INLINE = re.compile(r'\{[^{}]{0,400}?"(?:bbox_2d|point_2d)"\s*:\s*\[[^\[\]{}]{0,200}\][^{}]{0,400}\}')
"""A box or point as models are asked for it: an object of JSON in the text, perhaps with a label."""


@dataclass
class Named:
    """Turns and what their mentions stand for.

    Attributes:
        turns: regions as in :class:`~theworld.data.entries.formats.entry_record.Record`.
        boxes: one for each ``<mask>`` of the questions: rows of four numbers, or of two for a point.
        places: which of the entry's own boxes each is, if they are these.
    """

    turns: Turns
    boxes: list[list[float]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


def name_regions(entry_id: str, turns: Turns, read_boxes: Callable[[], list[list[float]]]) -> Named:
    """Bring the texts of an entry to masks.

    A question names regions by ``<mask>``, one box each in their order, or by ``Region [N]``, the N-th box; or it has
    boxes and points itself, as ``{"bbox_2d": [...]}``. What an answer gives in numbers of its own stays text: drawn, it
    would be told beforehand. Boxes that no question names are not drawn.

    Args:
        entry_id: for the line on one that cannot be used.
        turns: as the entry has them.
        read_boxes: gives the entry's boxes; asked only where a question names them.

    Raises:
        BadEntry: a number is of no box, or an answer's is not one of its question's.
    """
    questions = [turn["value"] for turn in turns if turn["from"] == "human"]
    if any(MASK in text for text in questions):
        boxes = read_boxes()
        return Named([written_alike(turn) for turn in turns], boxes, list(range(len(boxes))))
    if any(NUMBERED.search(text) for text in questions):
        return by_number(entry_id, turns, read_boxes())
    if any(INLINE.search(text) for text in questions):
        return by_place(turns)
    return Named(turns)


def written_alike(turn: dict[str, str]) -> dict[str, str]:
    """A turn whose answer says ``Region [N]`` where it says ``[Region N]``."""
    if turn["from"] == "human":
        return turn
    return {**turn, "value": NUMBERED.sub(lambda match: f"Region [{match[1] or match[2]}]", turn["value"])}


def by_number(entry_id: str, turns: Turns, boxes: Sequence[Sequence[float]]) -> Named:
    """Of texts that number the entry's boxes: answers get the numbers of their own question's mentions."""
    named = Named([])
    own: list[int] = []

    def mention(match: re.Match[str]) -> str:
        number = int(match[1] or match[2])
        if number >= len(boxes):
            raise BadEntry(entry_id, "a region's number is of no box", f"{match[0]}, {len(boxes)} boxes")
        own.append(number)
        named.boxes.append(list(boxes[number]))
        named.places.append(number)
        return MASK

    def cited(match: re.Match[str]) -> str:
        number = int(match[1] or match[2])
        if number not in own:
            raise BadEntry(entry_id, "an answer names a region that its question does not", match[0])
        return f"Region [{own.index(number)}]"

    for turn in turns:
        if turn["from"] == "human":
            own.clear()
        text = NUMBERED.sub(mention if turn["from"] == "human" else cited, turn["value"])
        named.turns.append({**turn, "value": text})
    return named


def by_place(turns: Turns) -> Named:
    """Of texts that hold boxes and points themselves; an answer that repeats one of its question names the region."""
    named = Named([])
    own: list[list[float]] = []

    def mention(match: re.Match[str]) -> str:
        found = read_inline(match[0])
        if found is None:
            return match[0]
        row, label = found
        own.append(row)
        named.boxes.append(row)
        return f"{label} {MASK}".strip()

    def cited(match: re.Match[str]) -> str:
        found = read_inline(match[0])
        if found is None or found[0] not in own:
            return match[0]
        return f"{found[1]} Region [{own.index(found[0])}]".strip()

    for turn in turns:
        if turn["from"] == "human":
            own.clear()
        text = INLINE.sub(mention if turn["from"] == "human" else cited, turn["value"])
        named.turns.append({**turn, "value": text})
    return named


def read_inline(text: str) -> tuple[list[float], str] | None:
    """Numbers and label of such an object; None if it is something else after all."""
    try:
        found: Any = json.loads(text)
    except ValueError:
        return None
    for key, length in (("bbox_2d", 4), ("point_2d", 2)):
        row = found.get(key)
        if are_numbers(row, length):
            label = found.get("label")
            return [float(value) for value in row], label if isinstance(label, str) else ""
    return None
