"""The parts that entries of many data sets are made of: images, turns, boxes, under whatever names they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from theworld.data.entries.check_entry import NUMBERS, BadEntry, is_finite
from theworld.data.entries.formats.entry_record import NO_IMAGE, Turns
from theworld.data.entries.frame import SHARES, annotation_size
from theworld.data.entries.rle_runs import mask_box

IMAGE_KEYS = ("filename", "file_name", "image", "images", "image_path", "file_path", "image_info")
ROLES = {
    **dict.fromkeys(("human", "user"), "human"),
    **dict.fromkeys(("gpt", "assistant", "model", "bot", "chatbot"), "gpt"),
    "system": "system",
}
BOX_KEYS = ("bbox", "bboxes", "bbox_2d", "boxes")
POINT_KEYS = ("points", "point_2d")
UNITS = ("auto", "pixels", "shares", "thousandths")
IMAGE = "<image>"
PLACEHOLDERS = (IMAGE, "<video>", "<audio>")
OTHER_MEDIA = ("video", "videos", "audio", "audios")
POINT = 0.01
"""Half a side of the box that is drawn round a point, as a share of the picture; of one of unknown size:"""
POINT_PIXELS = 8.0


def entry_id(raw: Mapping[str, Any]) -> str | int | None:
    """The entry's own id, if it has one."""
    for key in ("id", "question_id", "sample_id"):
        value = raw.get(key)
        if (isinstance(value, str) and value) or (isinstance(value, int) and not isinstance(value, bool)):
            return value
    return None


def shown_id(raw: Mapping[str, Any]) -> str:
    """For a line on an entry that cannot be used."""
    own = entry_id(raw)
    return "" if own is None else str(own).encode("utf-8", "replace").decode()


def image_names(raw: Mapping[str, Any]) -> list[str]:
    """The images that an entry has, as it names them: of the first of :data:`IMAGE_KEYS` that names any."""
    for key in IMAGE_KEYS:
        value = raw.get(key)
        if key == "image_info" and not isinstance(value, Mapping):
            continue
        names: list[str] = []
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and one:
                names.append(one)
            elif isinstance(one, Mapping):
                names += [one["path"]] if isinstance(one.get("path"), str) else image_names(one)
        if names:
            return names
    return []


def images_of(raw: Mapping[str, Any], turns: Turns) -> list[str]:
    """The paths of an entry's images; [] if it is text alone.

    Args:
        raw: the entry.
        turns: what it says.

    Raises:
        BadEntry: it has an image of which no path can be read, or speaks of one that it does not name.
    """
    names = image_names(raw)
    if names:
        return names
    held = [raw[key] for key in IMAGE_KEYS if key != "image_info" and raw.get(key)]
    if any(isinstance(one, (bytes, Mapping, list)) for one in held):
        raise BadEntry(shown_id(raw), "entry holds its picture itself", "convert.images=null takes it from there")
    spoken = [mark for mark in PLACEHOLDERS if any(mark in turn["value"] for turn in turns)]
    if held or spoken or any(raw.get(key) for key in OTHER_MEDIA):
        says = f"its text has {spoken[0]}; " if spoken else ""
        raise BadEntry(shown_id(raw), NO_IMAGE, f"{says}it has {', '.join(map(repr, raw))}"[:255])
    return []


def boxes_by_image(raw: dict[str, Any], images: int) -> tuple[dict[str, Any], list[int]]:
    """An entry that lists the boxes of each of its several images apart, with one list of all, and the image of each
    box; any other as it is, and []."""
    flat, owners = dict(raw), []
    for key in (*BOX_KEYS, *POINT_KEYS, "rle"):
        lists = raw.get(key)
        if images < 2 or not isinstance(lists, list) or len(lists) != images:
            continue
        if all(isinstance(one, list) and all(isinstance(row, (list, Mapping)) for row in one) for one in lists):
            flat[key] = [row for one in lists for row in one]
            owners = owners or [place for place, one in enumerate(lists) for _ in one]
    return flat, owners


def turns_of(raw: Mapping[str, Any], key: str) -> Turns:
    """The conversation under a key, roles and texts under whichever names.

    What a system turn says is put in front of the question that follows it, as Gemma's template would.

    Raises:
        BadEntry: it is no list of turns, a role is not known, or a turn has no text.
    """
    messages = raw.get(key)
    if not isinstance(messages, list):
        raise BadEntry(shown_id(raw), "entry lacks a key", f"{key}: a list of turns")
    marked = sum(map(is_image, parts_of(messages))) > 1
    turns: Turns = []
    system = ""
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise BadEntry(shown_id(raw), "conversation turn lacks its text", f"turn {number}")
        named = message.get("from", message.get("role"))
        role = ROLES.get(named.lower()) if isinstance(named, str) else None
        if role is None:
            raise BadEntry(shown_id(raw), "conversation turn is of an unknown role", f"turn {number}: {named!r}"[:255])
        text = text_of(message, marked)
        if text is None:
            raise BadEntry(shown_id(raw), "conversation turn lacks its text", f"turn {number}")
        if role == "system":
            system = f"{system}{text.strip()}\n\n" if text.strip() else system
            continue
        if role == "human":
            text, system = system + text, ""
        turns.append({"from": role, "value": text})
    return turns


def parts_of(messages: list[Any]) -> Iterator[Any]:
    """The parts of all messages that have parts."""
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        yield from content if isinstance(content, list) else ()


def is_image(part: Any) -> bool:
    """Whether a part of a message is an image."""
    return isinstance(part, Mapping) and part.get("type") in ("image", "image_url")


def text_of(message: Mapping[str, Any], marked: bool = False) -> str | None:
    """A turn's text; the texts of its parts where it has parts. None if it has none.

    Args:
        message: the turn.
        marked: put ``<image>`` where a part is an image.
    """
    content = next((message[key] for key in ("value", "content", "text") if key in message), None)
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = [
        IMAGE if marked and is_image(part) else part.get("text") if isinstance(part, Mapping) else part
        for part in content
    ]
    return "\n".join(text for text in texts if isinstance(text, str))


def lists_boxes(raw: Mapping[str, Any]) -> bool:
    """Whether it has boxes or points beside its masks."""
    return any(raw.get(key) not in (None, []) for key in (*BOX_KEYS, *POINT_KEYS))


def boxes_of(raw: Mapping[str, Any]) -> list[list[float]]:
    """The boxes that an entry lists, or those round its points, or round its masks (``rle``); [] if it lists none.

    Raises:
        BadEntry: one is not four numbers, a point not two, a mask cannot be read.
    """
    for keys, read_row in ((BOX_KEYS, box_row), (POINT_KEYS, point_row)):
        for key in keys:
            value = raw.get(key)
            if value is None or value == []:
                continue
            rows = [value] if isinstance(value, list) and value and type(value[0]) in NUMBERS else value
            return [read_row(raw, row, f"{key} {number}") for number, row in enumerate(listed(raw, key, rows))]
    masks = raw.get("rle")
    if masks is None:
        return []
    found = [mask_box(mask) for mask in listed(raw, "rle", masks)]
    if None in found:
        raise BadEntry(shown_id(raw), "a mask cannot be read", f"rle {found.index(None)}: damaged, or empty")
    return [box for box in found if box is not None]


def listed(raw: Mapping[str, Any], key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadEntry(shown_id(raw), f"{key} is not a list", type(value).__name__)
    return value


def box_row(raw: Mapping[str, Any], row: Any, where: str) -> list[float]:
    """Four finite numbers."""
    if not are_numbers(row, 4):
        raise BadEntry(shown_id(raw), "a box is not four numbers", where)
    return [float(value) for value in row]


def point_row(raw: Mapping[str, Any], row: Any, where: str) -> list[float]:
    """Two finite numbers."""
    if not are_numbers(row, 2):
        raise BadEntry(shown_id(raw), "a point is not two numbers", where)
    return [float(value) for value in row]


def are_numbers(row: Any, count: int) -> bool:
    """Whether it is a list of so many finite numbers."""
    good = isinstance(row, list) and len(row) == count and NUMBERS.issuperset(map(type, row))
    return good and all(map(is_finite, row))


def picture_size(raw: Mapping[str, Any]) -> list[int]:
    """``[height, width]`` by the masks, else by what the entry says of itself or under ``image_info``; [] if by
    nothing."""
    found = annotation_size(dict(raw))
    info = raw.get("image_info")
    for about in (raw, info):
        if found or not isinstance(about, Mapping):
            continue
        sides = [about.get(key) for key in ("height", "width")]
        if all(type(side) is int and side > 0 for side in sides):
            found = [side for side in sides if type(side) is int]
    return found


def framed(
    boxes: Sequence[Sequence[float]], unit: str, size: Sequence[int]
) -> tuple[list[list[float]], list[int] | list[float]]:
    """Boxes and points in one frame: boxes, and the ``annotation_size`` that they are of.

    Args:
        boxes: rows of four, or of two: points, of which each becomes a small box.
        unit: one of :data:`UNITS`; auto: shares where no value lies beyond 0..1, else pixels.
        size: ``[height, width]`` of the picture, or [].
    """
    values = [value for row in boxes for value in row]
    if unit == "auto":
        unit = "shares" if values and all(0 <= value <= 1 for value in values) else "pixels"
    if unit == "pixels":
        half = POINT * max(size) if size else POINT_PIXELS
        return [boxed(row, half) for row in boxes], list(size)
    whole = 1000.0 if unit == "thousandths" else 1.0
    return [boxed([value / whole for value in row], POINT) for row in boxes], list(SHARES)


def boxed(row: Sequence[float], half: float) -> list[float]:
    """The row itself, or a square round it if it is a point."""
    if len(row) == 4:
        return list(row)
    x, y = row
    return [x - half, y - half, x + half, y + half]
