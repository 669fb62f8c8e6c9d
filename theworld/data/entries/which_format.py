"""The format of a source's entries: as the user says, as it was told the last time, or told by a look at the first."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from theworld.data.entries.catalog import Catalog
from theworld.data.entries.formats.entry_format import OPENSPATIAL, EntryFormat
from theworld.data.entries.formats.format_table import AUTO, detect, make_format
from theworld.data.entries.read_source import read_source
from theworld.data.entries.source import JsonSource
from theworld.data.entries.stream import BrokenJson
from theworld.errors import UserError
from theworld.files import read_json, write_json

TOLD = "format.json"

logger = logging.getLogger(__name__)


def which_format(
    name: str, unit: str, source: JsonSource, state: Path, keep_masks: bool, images: tuple[int, int]
) -> EntryFormat:
    """The format that ``convert.format`` means for this source.

    Args:
        name: ``convert.format``.
        unit: ``convert.boxes``.
        source: where the entries come from; read only if nothing else tells.
        state: folder that keeps what was told.
        keep_masks: ``convert.keep_masks``.
        images: that an entry may have, at least and at most.

    Raises:
        UserError: there is no such format, or the source cannot be read.
    """
    if name != AUTO:
        return make_format(name, unit, images)
    known = known_format(source.identity, state, keep_masks)
    if known is None:
        path = source.fetch()
        known, why = detect(first_items(path))
        logger.info("convert.format: auto takes %s for %s: %s", known, path, why)
        write_json(state / TOLD, {"source": source.identity, "format": known, "why": why})
    return make_format(known, unit, images)


def form_of_file(path: Path, name: str, images: tuple[int, int]) -> EntryFormat:
    """The format that a name means for a file or folder that lies here, of whose entries each may have so many images
    at least and at most; nothing is kept of it."""
    return make_format(detect(first_items(path))[0] if name == AUTO else name, images=images)


def known_format(identity: dict[str, Any], state: Path, keep_masks: bool) -> str | None:
    """What auto took for this state of the source; None if it has not looked at it yet."""
    told = read_json(state / TOLD)
    if told is not None and told["source"] == identity:
        return told["format"]
    # A catalog of a release that knew no formats; nothing has to be fetched for it.
    return OPENSPATIAL if Catalog(state, identity, keep_masks).complete else None


def first_items(path: Path) -> Iterator[Any]:
    """The items, to their end or to the first fault, which whoever reads them all will say.

    Raises:
        UserError: there is a fault before the first item, and nothing that a format could be told from.
    """
    any_item = False
    try:
        for item in read_source(path):
            any_item = True
            yield item
    except (BrokenJson, UserError, OSError) as error:
        if isinstance(error, UserError) and not any_item:
            raise
