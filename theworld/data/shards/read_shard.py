"""One shard of a generation, opened to be read sample by sample."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from streaming.base.compression import decompress
from streaming.base.format import reader_from_json
from streaming.base.format.base.reader import Reader


class OpenShard:
    """A shard; a compressed one is unpacked to a temporary folder for as long as this object lives.

    Args:
        generation: the folder of its generation.
        entry: the shard's in index.json.

    Raises:
        OSError, ValueError: it cannot be read.
    """

    def __init__(self, generation: Path, entry: dict[str, Any]) -> None:
        folder = str(generation)
        self._unpacked: tempfile.TemporaryDirectory[str] | None = None
        if entry["zip_data"]:
            self._unpacked = tempfile.TemporaryDirectory()
            (Path(self._unpacked.name) / entry["raw_data"]["basename"]).write_bytes(unpack(generation, entry))
            folder = self._unpacked.name
        self.reader: Reader = reader_from_json(folder, "", dict(entry))


def unpack(generation: Path, entry: dict[str, Any]) -> bytes:
    """A compressed shard, as it was before that.

    Args:
        generation: the folder of its generation.
        entry: the shard's in index.json.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    packed = (generation / entry["zip_data"]["basename"]).read_bytes()
    try:
        return decompress(entry["compression"], packed)
    except Exception as error:  # each compression has errors of its own
        raise ValueError(f"{entry['zip_data']['basename']}: {error}") from error
