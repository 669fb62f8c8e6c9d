"""``convert.format``: the formats there are, which of them a file has, and a user's own."""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import islice
from typing import Any

from theworld.data.entries.check_entry import BadEntry
from theworld.data.entries.formats import captions, chat_messages, llava, ref_spatial, spatialrgpt_form, warehouse
from theworld.data.entries.formats.entry_format import OPENSPATIAL, EntryFormat
from theworld.data.entries.formats.entry_record import MOST_IMAGES, ReadEntry, Record, RecordFormat, record_format
from theworld.data.entries.formats.openspatial import OpenSpatial
from theworld.errors import UserError, describe
from theworld.own_code import own_class

AUTO = "auto"
LOOKED_AT = 100
"""Items of a file by which its format is told."""


@dataclass(frozen=True)
class Known:
    """A format of the table.

    Attributes:
        keys: by which entries of it are told; those that begin with "no " must not be there.
        read: makes a record of one; None for OpenSpatialDataset's, which is a class of its own.
    """

    keys: tuple[str, ...]
    read: ReadEntry | None = None


FORMATS: Mapping[str, Known] = {
    OPENSPATIAL: Known(("filename",)),
    "spatialrgpt_bench": Known(("image_info", "qa_info", "conversations"), spatialrgpt_form.read),
    "warehouse": Known(("image", "conversations", "rle", "no bbox"), warehouse.read),
    "refspatial": Known(("image", "conversations", "depth"), ref_spatial.read),
    "messages": Known(("messages",), chat_messages.read),
    "captions": Known(("image", "caption", "no conversations"), captions.read),
    "llava": Known(("conversations",), llava.read),
}
"""The first whose keys an entry has is its format."""


def format_of(raw: Any) -> str:
    """The format of an entry by its keys; "" for none that is known."""
    if not isinstance(raw, dict):
        return ""
    for name, known in FORMATS.items():
        if all(key.removeprefix("no ") not in raw if key.startswith("no ") else key in raw for key in known.keys):
            return name
    return ""


def detect(items: Iterable[Any]) -> tuple[str, str]:
    """The format that most of a file's first items have, and the reason in a few words; openspatial if none is known,
    so that what is missing of it is said."""
    counts = Counter(map(format_of, islice(items, LOOKED_AT)))
    total = sum(counts.values())
    del counts[""]
    if not counts:
        return OPENSPATIAL, f"no format is known that any of the first {total} entries has"
    name, count = counts.most_common(1)[0]
    keys = ", ".join(key for key in FORMATS[name].keys)
    return name, f"{count} of the first {total} entries have {keys}"


def make_format(name: str, unit: str = AUTO, images: tuple[int, int] = (0, MOST_IMAGES)) -> EntryFormat:
    """The format of a name that is not auto.

    Args:
        name: of the table, or a user's own function as ``module:function``.
        unit: ``convert.boxes``.
        images: that an entry may have, at least and at most.

    Raises:
        UserError: there is none of that name.
    """
    if name == OPENSPATIAL:
        return OpenSpatial()
    known = FORMATS.get(name)
    if known is not None and known.read is not None:
        made = record_format(name, known.read, unit)
    elif ":" in name:
        made = own_format(name)
    else:
        raise UserError(f"convert.format: {name}: expected {AUTO}, {', '.join(FORMATS)}, or your own module:function")
    return replace(made, fewest=images[0], most=images[1])


def own_format(name: str) -> RecordFormat:
    """A user's own: a function of an entry that gives a :class:`Record`, a mapping of its attributes, or None.

    Raises:
        UserError: there is no such function.
    """
    function = own_class("convert.format", name)
    try:
        code = hashlib.sha256(inspect.getsource(inspect.getmodule(function) or function).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        code = ""  # no source to be had: a change of it is not noticed
    return RecordFormat(name, partial(own_record, name, function), code=code)


def own_record(name: str, function: Callable[[dict[str, Any]], Any], raw: dict[str, Any]) -> Record:
    """What a user's function makes of an entry.

    Raises:
        BadEntry: it gives None: the entry is left out.
        UserError: it fails, which would lose entry after entry, or gives something else.
    """
    try:
        made = function(raw)
    except BadEntry:
        raise
    except Exception as error:  # whatever the user's own code raises
        entry = str(raw)[:80]
        raise UserError(f"convert.format: {name}: failed on entry {entry}: {describe(error)}") from error
    if made is None:
        own = raw.get("id", "")
        raise BadEntry(str(own) if isinstance(own, (str, int)) else "", "left out by convert.format", name)
    if isinstance(made, Record):
        made = asdict(made)
    allowed = {one.name for one in fields(Record)}
    if not isinstance(made, Mapping) or not set(made) <= allowed or not {"image", "conversations"} <= set(made):
        found, optional = str(made)[:80], ", ".join(sorted(allowed - {"image", "conversations"}))
        raise UserError(
            f"convert.format: {name}: gave {found}; expected a mapping with image, conversations, and what it has of "
            f"{optional}"
        )
    return Record(**made)
