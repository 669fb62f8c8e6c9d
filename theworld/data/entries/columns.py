"""The columns of a shard, one entry each: what the catalog keeps, how a shard is laid out, what a latent is made of.

To add a column, add an entry to :data:`COLUMNS`. A value that follows from the conversations file waits in the
catalog's records until its image is there (the catalog is then read anew, since its columns are part of what names
it); a value that follows from the image is made when the shard is written.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter, itemgetter
from typing import Any

from theworld.data.entries.check_entry import BadEntry, image_id
from theworld.data.entries.frame import annotation_size

MASKS = "masks"
ANNOTATION_SIZE = "annotation_size"
ABOUT = "about"
BOX_IMAGES = "box_images"
"""In the column ``about``: the image that each box is of, by its place from 0, where not all are of the first."""
MORE_IMAGES = "more_images"
WORLD_LATENTS = "world_latents"
FIXED = {"int32": struct.Struct("<i")}
"""MDS encodings whose values all have the same size."""
BEFORE_IMAGE = struct.Struct("<Iii")
"""What precedes each image file in the column ``more_images``: its bytes, its width and its height in pixels."""


class Origin(Enum):
    """Where a column's values come from, which is also when they are known."""

    ENTRY = "the conversations file"
    IMAGE = "the image file"
    MADE = "computed while the shard is written"


@dataclass(frozen=True)
class Picture:
    """An image file that was read and checked: its bytes, and its width and height in pixels.

    A sample of text alone has an empty one of 0 x 0; of one with several images it is the first, and ``more`` are the
    others.
    """

    data: bytes
    width: int
    height: int
    more: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: in the shard.
        encoding: MDS's: ``str`` or ``json`` for a value of the entry; ``bytes`` or one of :data:`FIXED` for one of the
            image; ``bytes`` for one that is made.
        origin: where the values come from.
        value: what makes a value of a checked raw entry, or of a :class:`Picture`; None if it is made elsewhere.
        optional: whether only some data sets have it.
    """

    name: str
    encoding: str
    origin: Origin
    value: Callable[[Any], Any] | None = None
    optional: bool = False


def entry_id(raw: dict[str, Any]) -> str:
    """The id of a checked entry: its image's file name without suffix."""
    return image_id(raw["filename"])


def pack_more(picture: Picture) -> bytes:
    """The images of a sample beyond the first, one after the other, each behind its :data:`BEFORE_IMAGE`."""
    return b"".join(BEFORE_IMAGE.pack(len(one.data), one.width, one.height) + one.data for one in picture.more)


def unpack_more(data: bytes) -> list[Picture]:
    """The images of :func:`pack_more`.

    Raises:
        ValueError: it is cut short.
    """
    found: list[Picture] = []
    start = 0
    while start < len(data):
        if start + BEFORE_IMAGE.size > len(data):
            raise ValueError(f"{MORE_IMAGES}: cut short")
        size, width, height = BEFORE_IMAGE.unpack_from(data, start)
        start += BEFORE_IMAGE.size
        found.append(Picture(data[start : start + size], width, height))
        start += size
    if start > len(data):
        raise ValueError(f"{MORE_IMAGES}: cut short")
    return found


# Values are made by functions with a name: a shard's format is sent to worker processes, columns included.
COLUMNS = (
    Column("id", "str", Origin.ENTRY, entry_id),
    Column("conversations", "json", Origin.ENTRY, itemgetter("conversations")),
    Column("bbox", "json", Origin.ENTRY, itemgetter("bbox")),
    Column(ANNOTATION_SIZE, "json", Origin.ENTRY, annotation_size),
    Column(MASKS, "json", Origin.ENTRY, itemgetter("rle"), optional=True),
    Column(ABOUT, "json", Origin.ENTRY, optional=True),
    Column("image", "bytes", Origin.IMAGE, attrgetter("data")),
    Column("width", "int32", Origin.IMAGE, attrgetter("width")),
    Column("height", "int32", Origin.IMAGE, attrgetter("height")),
    Column(MORE_IMAGES, "bytes", Origin.IMAGE, pack_more, optional=True),
    Column(WORLD_LATENTS, "bytes", Origin.MADE, optional=True),
)


def columns_with(**optional: bool) -> tuple[Column, ...]:
    """The columns of a data set, in the table's order.

    Args:
        optional: name of an optional column to whether the data set has it; one that is not named is left out.
    """
    return tuple(column for column in COLUMNS if not column.optional or optional.get(column.name))


def of_entry(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """The fields of a record: those whose values come from the conversations file, in the table's order."""
    return tuple(column for column in columns if column.origin is Origin.ENTRY)


def encode_record(raw: dict[str, Any], columns: tuple[Column, ...]) -> bytes:
    """The line that stands for a checked entry in the catalog: the fields between tabs.

    JSON text has no tab or newline in it, and an id that passed the check is printable.

    Args:
        raw: the entry.
        columns: those of :func:`of_entry`.

    Raises:
        BadEntry: something beside texts and boxes cannot be written as JSON, such as NaN under a key of the user's own.
    """
    return encode_fields(entry_id(raw), ((column.encoding, column.value(raw)) for column in columns if column.value))


def encode_fields(of: str, values: Iterable[tuple[str, Any]]) -> bytes:
    """The same of the fields' encodings and values; ``of`` is the id."""
    try:
        fields = [value if kind == "str" else json.dumps(value, allow_nan=False) for kind, value in values]
    except (ValueError, TypeError, RecursionError) as error:
        raise BadEntry(of, "entry holds what JSON cannot", str(error)) from error
    return "\t".join(fields).encode() + b"\n"


def split_record(line: bytes, columns: tuple[Column, ...]) -> dict[str, bytes]:
    """Column name to the bytes that the shard holds of it, of a line of :func:`encode_record`."""
    names = [column.name for column in of_entry(columns)]
    return dict(zip(names, line.rstrip(b"\n").split(b"\t"), strict=True))


def sample_of(line: bytes, picture: Picture, columns: tuple[Column, ...]) -> dict[str, Any]:
    """Column name to value as a reader of the shard will see it, without the columns that are made."""
    sample: dict[str, Any] = {}
    texts = split_record(line, columns)
    for column in columns:
        if column.origin is Origin.ENTRY:
            text = texts[column.name]
            sample[column.name] = text.decode() if column.encoding == "str" else json.loads(text)
        elif column.origin is Origin.IMAGE and column.value:
            sample[column.name] = column.value(picture)
    return sample


def encode_picture(picture: Picture, columns: tuple[Column, ...]) -> dict[str, bytes]:
    """Column name to the bytes that the shard holds of it, for the columns that come from the image."""
    values = {c.name: (c.encoding, c.value(picture)) for c in columns if c.origin is Origin.IMAGE and c.value}
    return {name: FIXED[kind].pack(value) if kind in FIXED else value for name, (kind, value) in values.items()}
