"""What an entry must have before its image is even looked for."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

from theworld.data.entries.check_text import text_fault

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MASK = "<mask>"
REPLIES = {"human": "gpt", "gpt": "human"}
LONGEST_NAME = 255
NUMBERS = frozenset((int, float))


@dataclass(frozen=True)
class Unreadable:
    """Stands for an item of the file that cannot be parsed.

    Attributes:
        id: the file name in it, if one can be made out, else "".
        reason: to count by.
        detail: what is wrong, and at which byte.
    """

    id: str
    reason: str
    detail: str


class BadEntry(Exception):
    """An entry that cannot be used.

    Attributes:
        id: what names it: its id, or "" when it has none.
        reason: one of a few fixed texts, so that entries can be counted by it.
        detail: what exactly was found.
    """

    def __init__(self, entry_id: str, reason: str, detail: str) -> None:
        super().__init__(f"{entry_id}: {reason}: {detail}")
        self.id, self.reason, self.detail = entry_id, reason, detail


def id_key(entry_id: str) -> int:
    """First 64 bits of the id's SHA-256: what ids are matched by and what decides the held-out share."""
    return int.from_bytes(hashlib.sha256(entry_id.encode("utf-8")).digest()[:8], "big")


def held_out_below(holdout: float) -> int:
    """Ids whose key is below this are held out, for a share of them from 0 up to, not including, 1."""
    return int(holdout * 2**64)


def image_id(filename: str) -> str:
    """The id in a file name: ``00ab.jpg`` and ``00ab`` are both ``00ab``."""
    stem, dot, suffix = filename.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else filename


def check_entry(raw: Any, keep_masks: bool) -> str:
    """The id of an entry that has what a sample needs.

    Args:
        raw: an entry of the file: ``filename``, the image's with or without suffix; ``conversations``, a list of
            ``{"from": "human" | "gpt", "value": str}``; ``bbox``, a list of ``[x1, y1, x2, y2]`` in pixels, one per
            ``<mask>``, perhaps empty; ``rle``, one mask a box.
        keep_masks: whether ``rle`` is needed.

    Raises:
        BadEntry: a key is missing, a type is wrong, boxes do not match the ``<mask>`` tokens.
    """
    if isinstance(raw, Unreadable):
        raise BadEntry(raw.id, raw.reason, raw.detail)
    if not isinstance(raw, dict):
        raise BadEntry("", "entry is not an object", type(raw).__name__)
    if "filename" not in raw:
        raise BadEntry("", "entry lacks a key", f"filename; it has {', '.join(map(repr, raw))[:LONGEST_NAME]}")
    entry_id = check_filename(raw["filename"])
    missing = [key for key in ("conversations", "bbox") if key not in raw]
    if keep_masks and "rle" not in raw:
        missing.append("rle")
    if missing:
        raise BadEntry(entry_id, "entry lacks a key", ", ".join(missing))
    masks = count_masks(entry_id, raw["conversations"])
    check_boxes(entry_id, raw["bbox"], masks)
    if keep_masks and (not isinstance(raw["rle"], list) or len(raw["rle"]) != masks):
        raise BadEntry(entry_id, "masks do not match the <mask> tokens", f"{masks} tokens")
    return entry_id


def check_filename(filename: Any) -> str:
    """The id of a file name that is safe to look up in the image folder."""
    if not isinstance(filename, str):
        raise BadEntry("", "entry lacks a key", "filename" if filename is None else "filename is not a string")
    shown = filename.encode("utf-8", "replace").decode("utf-8")
    entry_id = image_id(filename)
    if "/" in filename or "\\" in filename or filename in (".", ".."):
        raise BadEntry(shown, "file name has a path in it", repr(filename))
    printable = filename.isprintable() and shown == filename
    if not entry_id or filename.startswith(".") or not printable or len(filename.encode("utf-8")) > LONGEST_NAME:
        raise BadEntry(shown, "file name cannot be one", repr(filename[:LONGEST_NAME]))
    return entry_id


def count_masks(entry_id: str, conversations: Any) -> int:
    """``<mask>`` tokens in the human turns; checks that turns alternate, human first, with text in each."""
    if not isinstance(conversations, list) or len(conversations) < 2 or len(conversations) % 2:
        raise BadEntry(entry_id, "conversation is not pairs of question and answer", "not an even number of turns")
    expected = "human"
    masks = 0
    for number, turn in enumerate(conversations):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise BadEntry(entry_id, "conversation turn lacks its text", f"turn {number}")
        if (fault := text_fault(turn["value"])) is not None:
            raise BadEntry(entry_id, "a text is not Unicode", f"turn {number}: {fault}")
        if turn.get("from") != expected:
            detail = f"turn {number} is from {turn.get('from')!r}, expected {expected}"
            raise BadEntry(entry_id, "conversation is not pairs of question and answer", detail)
        if expected == "human":
            masks += turn["value"].count(MASK)
        expected = REPLIES[expected]
    return masks


def is_finite(value: float) -> bool:
    """Whether a number is one that a float can hold."""
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of some hundred digits
        return False


def check_boxes(entry_id: str, boxes: Any, masks: int) -> None:
    """Four finite numbers a box, one box a ``<mask>``. Boxes beyond the image or inverted are usual and fine."""
    if not isinstance(boxes, list):
        raise BadEntry(entry_id, "bbox is not a list of boxes", type(boxes).__name__)
    for number, box in enumerate(boxes):
        # Sets and maps: this runs for every number of the file, and a loop over them takes as long as parsing it.
        good = type(box) is list and len(box) == 4 and NUMBERS.issuperset(map(type, box))
        if not good or not all(map(is_finite, box)):
            raise BadEntry(entry_id, "a box is not four numbers", f"box {number}")
    if len(boxes) != masks:
        relation = "fewer" if len(boxes) < masks else "more"
        raise BadEntry(entry_id, f"{relation} boxes than <mask> tokens", f"{len(boxes)} boxes, {masks} tokens")
