"""RefSpatial (JingkunAn/RefSpatial): LLaVA's form with a list ``image`` and perhaps a list ``depth``, regions named by
``<mask> <depth>``, points in answers as text. Depth maps are not read: the world tokens come from the picture.
"""

from __future__ import annotations

from typing import Any

from theworld.data.entries.formats.entry_parts import turns_of
from theworld.data.entries.formats.entry_record import Record
from theworld.data.entries.formats.llava import record_of


def read(raw: dict[str, Any], unit: str) -> Record:
    return record_of(raw, turns_of(raw, "conversations"), unit)
