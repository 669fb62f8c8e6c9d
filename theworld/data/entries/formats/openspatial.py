"""OpenSpatialDataset's own form: ``filename, conversations, rle, bbox``, one box for each ``<mask>``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from theworld.data.entries.check_entry import check_entry
from theworld.data.entries.columns import Column, encode_record
from theworld.data.entries.formats.entry_format import OPENSPATIAL, Parsed


@dataclass(frozen=True)
class OpenSpatial:
    """See :class:`~theworld.data.entries.formats.entry_format.EntryFormat`."""

    name: str = OPENSPATIAL
    by_path: bool = False
    identity: dict[str, Any] = field(default_factory=dict)

    def parse(self, raw: Any, columns: tuple[Column, ...], keep_masks: bool) -> Parsed:
        entry_id = check_entry(raw, keep_masks)
        return Parsed(entry_id, entry_id, encode_record(raw, columns))
