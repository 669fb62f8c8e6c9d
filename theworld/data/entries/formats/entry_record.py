"""What a format's module makes of an entry, and the way from there to the catalog's line."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from theworld.data.entries.check_entry import (
    IMAGE_SUFFIXES,
    LONGEST_NAME,
    BadEntry,
    Unreadable,
    check_boxes,
    count_masks,
    image_id,
)
from theworld.data.entries.columns import ABOUT, ANNOTATION_SIZE, BOX_IMAGES, MASKS, Column, encode_fields
from theworld.data.entries.formats.entry_format import BETWEEN, Parsed
from theworld.data.entries.frame import are_shares

VERSION = 2
"""Increment it with any change of what the formats make of an entry, so that catalogs are read anew."""
NO_IMAGE = "entry names no image"
TEXT_ALONE = "entry is text alone: world latents are of a picture"
SEVERAL = "entry has several images: world latents are of one"
TOO_MANY_IMAGES = "entry has more images than convert.most_images"
MOST_IMAGES = 16
"""As ``convert.most_images`` unless it says otherwise."""

Turns = list[dict[str, str]]


@dataclass
class Record:
    """One sample to be, in the terms of the shards' columns (docs/data-format.md).

    Attributes:
        image: path of its file below the image folder, with or without suffix; a list of them if there are several,
            or none: text alone.
        conversations: ``{"from": "human" | "gpt", "value": text}``; regions are ``<mask>`` in questions, and in answers
            ``Region [N]``, where N counts the masks of the answer's own question.
        boxes: ``[x1, y1, x2, y2]``, one for each ``<mask>``.
        id: the entry's own; None: the image's path without suffix (:func:`name_of`).
        size: ``[height, width]`` that the boxes are of, :data:`~theworld.data.entries.frame.SHARES`, or [] if unknown.
        masks: COCO run lengths, one for each ``<mask>``; needed only if they are to be kept.
        source: where the entry comes from, if it says so.
        category: what kind of question it is, if it says so.
        box_images: of several images the one that each box is in, by its place from 0; none: all are in the first.
    """

    image: str | Sequence[str]
    conversations: Turns
    boxes: list[list[float]] = field(default_factory=list)
    id: str | int | None = None
    size: Sequence[float] = ()
    masks: list[Any] = field(default_factory=list)
    source: str = ""
    category: str = ""
    box_images: Sequence[int] = ()


@dataclass(frozen=True)
class RecordFormat:
    """A format by a function; see :class:`~theworld.data.entries.formats.entry_format.EntryFormat`.

    Attributes:
        read: makes a record of an entry, which is an object.
        code: tells one state of a user's own function from another.
        fewest, most: images that an entry may have.
    """

    name: str
    read: Callable[[dict[str, Any]], Record]
    unit: str = "auto"
    code: str = ""
    by_path: bool = True
    fewest: int = 0
    most: int = MOST_IMAGES

    @property
    def identity(self) -> dict[str, Any]:
        counts = {"fewest": self.fewest, "most": self.most}
        return {"format": self.name, "unit": self.unit, "code": self.code, "formats": VERSION, **counts}

    def parse(self, raw: Any, columns: tuple[Column, ...], keep_masks: bool) -> Parsed:
        if isinstance(raw, Unreadable):
            raise BadEntry(raw.id, raw.reason, raw.detail)
        if not isinstance(raw, dict):
            raise BadEntry("", "entry is not an object", type(raw).__name__)
        record = self.read(raw)
        parsed = line_of(record, raw, columns, keep_masks)
        self._check_count(parsed.id, image_paths(record))
        return parsed

    def _check_count(self, entry_id: str, images: Sequence[str]) -> None:
        """Whether a sample may have so many images."""
        if len(images) < self.fewest:
            raise BadEntry(entry_id, TEXT_ALONE, "")
        named = f"{len(images)}: {', '.join(images)}"[:LONGEST_NAME]
        if len(images) > 1 and self.fewest == self.most:
            raise BadEntry(entry_id, SEVERAL, named)
        if len(images) > self.most:
            raise BadEntry(entry_id, TOO_MANY_IMAGES, named)


def image_paths(record: Record) -> list[str]:
    """The images that a record names."""
    return [record.image] if isinstance(record.image, str) else list(record.image)


def line_of(record: Record, raw: dict[str, Any], columns: tuple[Column, ...], keep_masks: bool) -> Parsed:
    """The record, checked, as the catalog keeps it."""
    entry_id, images = check_id(record)
    masks = count_masks(entry_id, record.conversations)
    check_boxes(entry_id, record.boxes, masks)
    check_box_images(entry_id, record, len(images))
    if keep_masks and len(record.masks) != masks:
        raise BadEntry(entry_id, "masks do not match the <mask> tokens", f"{masks} tokens")
    check_size(entry_id, record.size)
    about = {
        "image": images[0] if len(images) == 1 else "",
        "images": images if len(images) > 1 else [],
        "source": record.source,
        "category": record.category,
        BOX_IMAGES: list(record.box_images) if any(record.box_images) else [],
    }
    values: dict[str, Any] = {
        "id": entry_id,
        "conversations": record.conversations,
        "bbox": record.boxes,
        ANNOTATION_SIZE: list(record.size) if images else [],
        MASKS: record.masks,
        ABOUT: {key: value for key, value in about.items() if value},
    }
    made = ((column.encoding, value_of(column, values, raw)) for column in columns)
    return Parsed(entry_id, BETWEEN.join(map(image_id, images)), encode_fields(entry_id, made))


def value_of(column: Column, values: dict[str, Any], raw: dict[str, Any]) -> Any:
    """A record's value; of a column that records do not know, the entry's."""
    if column.name in values or column.value is None:
        return values[column.name]
    try:
        return column.value(raw)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadEntry(values["id"], "entry lacks a key", column.name) from error


def check_size(entry_id: str, size: Any) -> None:
    """Two whole numbers above 0, SHARES, or nothing."""
    good = (
        isinstance(size, (list, tuple)) and len(size) in (0, 2) and all(type(side) is int and side > 0 for side in size)
    )
    if not good and not (isinstance(size, (list, tuple)) and len(size) == 2 and are_shares(size)):
        raise BadEntry(entry_id, "annotation's size is not height and width", repr(size)[:80])


def check_box_images(entry_id: str, record: Record, images: int) -> None:
    """A place of an image for each box, or none at all."""
    if record.boxes and not images:
        raise BadEntry(entry_id, "entry has regions, but no image", f"{len(record.boxes)} boxes")
    places = record.box_images
    good = all(type(place) is int and 0 <= place < images for place in places)
    if places and not (good and len(places) == len(record.boxes)):
        detail = f"{list(places)!r}, {images} images, {len(record.boxes)} boxes"
        raise BadEntry(entry_id, "box_images do not match boxes and images", detail[:LONGEST_NAME])


def check_id(record: Record) -> tuple[str, list[str]]:
    """The sample's id, and the images' paths, checked."""
    own = record.id
    shown = str(own) if isinstance(own, (str, int)) else ""
    paths = [record.image] if record.image is None or isinstance(record.image, (str, int)) else list(record.image)
    images = [check_path(shown.encode("utf-8", "replace").decode(), path) for path in paths]
    entry_id = shown if shown != "" else name_of(images, record.conversations)
    if not is_name(entry_id):
        raise BadEntry(entry_id.encode("utf-8", "replace").decode()[:LONGEST_NAME], "id cannot be one", repr(own)[:80])
    return entry_id, images


def name_of(images: Sequence[str], conversations: Any) -> str:
    """The id of an entry that has none: its image's path without suffix; of several the first one's and how many more;
    of text alone what follows from the text."""
    if images:
        return image_id(images[0]) + (f"+{len(images) - 1}" if len(images) > 1 else "")
    digest = hashlib.sha256(json.dumps(conversations, sort_keys=True, default=str).encode("utf-8", "replace"))
    return f"text-{digest.hexdigest()[:16]}"


def is_name(text: str) -> bool:
    """Whether it is a line of printable text that a table has room for."""
    return text != "" and text.isprintable() and len(text.encode("utf-8", "surrogatepass")) <= LONGEST_NAME


def check_path(entry_id: str, path: Any) -> str:
    """A path that does not lead out of the image folder, without detours.

    Raises:
        BadEntry: it leads out, is hidden, cannot be a file's, or has a suffix of no image that is read.
    """
    if not isinstance(path, str) or not path:
        raise BadEntry(entry_id, NO_IMAGE, "")
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "\\" in path or (len(path) > 1 and path[1] == ":") or "://" in path:
        raise BadEntry(entry_id, "image's path leads out of the image folder", repr(path)[:LONGEST_NAME])
    clean = posixpath.normpath(path)
    good = all(is_name(part) and not part.startswith(".") for part in clean.split("/"))
    if not good or path.endswith("/"):
        raise BadEntry(entry_id, "image's path cannot be one", repr(path)[:LONGEST_NAME])
    suffix = posixpath.splitext(clean)[1].lower()
    if suffix in OTHER_SUFFIXES:
        raise BadEntry(entry_id, "image is of a kind that is not read", f"{suffix}; {' '.join(IMAGE_SUFFIXES)} are")
    return clean


OTHER_SUFFIXES = frozenset((".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".npy", ".mp4", ".avi", ".mkv", ".webm"))
"""Of what is no picture to the converter; any other ending may be a part of a name that has no suffix."""

ReadEntry = Callable[[dict[str, Any], str], Record]
"""Of an entry and the unit of its boxes (``convert.boxes``)."""


def record_format(name: str, read: ReadEntry, unit: str) -> RecordFormat:
    """A format of the table for one unit of boxes."""
    return RecordFormat(name, lambda raw: read(raw, unit), unit)
