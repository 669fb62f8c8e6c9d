"""The conversations file, parsed once: checked entries as records on disk, and an index over them.

A record is one line, the fields of :func:`~theworld.data.entries.columns.of_entry` between tabs
(``id TAB conversations TAB bbox [TAB masks]``); those texts are the column values of an MDS sample.
So what a later run needs of the 30 GB is an index in memory of 20 bytes an entry and a seek for
each new image.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from theworld.data.entries.check_entry import BadEntry, check_entry, id_key
from theworld.data.entries.columns import MASKS, columns_with, encode_record, of_entry
from theworld.data.entries.stream import BrokenJson, read_entries
from theworld.errors import UserError
from theworld.files import load_arrays, read_json, save_arrays, sync_file, write_json

VERSION = 2
BLOCK = 1024
DUPLICATE = "id named more than once"


@dataclass
class Block:
    """Entries in file order, each id once; n rows.

    Attributes:
        keys: (n,) uint64, :func:`~theworld.data.entries.check_entry.id_key`.
        offsets: (n,) int64, where the record starts, in bytes.
        lengths: (n,) int64, bytes of the record with its newline.
    """

    keys: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray


@dataclass
class Summary:
    """What the pass over the file found.

    Attributes:
        entries: entries in the file, good or not.
        good: entries that can become samples.
        example: id of the first good entry, or "".
        reasons: reason to number of entries that it ruled out.
        broken: the line to show if the file is not JSON to its end.
    """

    entries: int = 0
    good: int = 0
    example: str = ""
    reasons: dict[str, int] = field(default_factory=dict)
    broken: str | None = None


class SeenKeys:
    """The keys so far, as a sorted array: 8 bytes each, where a set of int takes a hundred."""

    def __init__(self) -> None:
        self.keys = np.zeros(0, np.uint64)
        self.repeated = 0

    def add(self, keys: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the keys (n,) uint64 come for the first time; the others are counted."""
        first = np.zeros(len(keys), bool)
        first[np.unique(keys, return_index=True)[1]] = True
        places = np.searchsorted(self.keys, keys)
        if len(self.keys):
            first &= self.keys[np.minimum(places, len(self.keys) - 1)] != keys
        order = np.argsort(keys[first])
        self.keys = np.insert(self.keys, places[first][order], keys[first][order])
        self.repeated += int(len(keys) - first.sum())
        return first


class Catalog:
    """The parsed form of one state of one conversations file.

    Args:
        root: folder that holds catalogs.
        identity: what tells one state of the source from another (place, size, time).
        keep_masks: whether records carry the masks.
    """

    def __init__(self, root: Path, identity: dict[str, Any], keep_masks: bool) -> None:
        self.columns = of_entry(columns_with(**{MASKS: keep_masks}))
        self.identity = {"version": VERSION, "columns": [column.name for column in self.columns], **identity}
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]
        self.keep_masks = keep_masks
        self.root = root
        self.folder = root / f"entries-{digest}"
        self.records = self.folder / "records"
        self.rejected = self.folder / "rejected.jsonl"
        self._index = self.folder / "index"
        self._summary = self.folder / "summary.json"
        self.summary = Summary()
        self.complete = self._load_summary()

    def _load_summary(self) -> bool:
        """Whether a whole catalog is on disk: the summary is written last."""
        stored = read_json(self._summary)
        if stored is None or not self._index.is_file() or not self.records.is_file():
            return False
        if stored["bytes"] != self.records.stat().st_size:
            return False
        self.summary = Summary(**stored["summary"])
        return True

    def blocks(self, json_path: Callable[[], Path], progress: Callable[[int], None] | None = None) -> Iterator[Block]:
        """All entries, from the index if there is one, else from the file, leaving an index behind.

        A file that is broken at some place gives the entries before it; ``summary.broken`` then
        holds the line to show.

        Args:
            json_path: called when the file has to be read; may fetch it first.
            progress: called with the bytes of the file read so far.
        """
        if self.complete:
            yield from self._indexed_blocks()
        else:
            yield from self._parsed_blocks(json_path(), progress)

    def _indexed_blocks(self) -> Iterator[Block]:
        stored = load_arrays(self._index)
        keys, lengths = stored["keys"], stored["lengths"].astype(np.int64)
        offsets = np.cumsum(lengths) - lengths
        for start in range(0, len(keys), BLOCK):
            rows = slice(start, start + BLOCK)
            yield Block(keys[rows], offsets[rows], lengths[rows])

    def _parsed_blocks(self, path: Path, progress: Callable[[int], None] | None) -> Iterator[Block]:
        self.folder.mkdir(parents=True, exist_ok=True)
        summary = Summary()
        seen = SeenKeys()
        keys, lengths, offset = array("Q"), array("Q"), 0
        with open(self.records, "wb") as records, open(self.rejected, "w", encoding="utf-8") as rejected:
            for entries in self._checked_entries(path, progress, summary, rejected):
                block_keys = np.array([id_key(entry_id) for entry_id, _ in entries], np.uint64)
                new = seen.add(block_keys)
                lines = [line for _, line in compress(entries, new)]
                if not lines:
                    continue
                summary.example = summary.example or entries[0][0]
                records.writelines(lines)
                records.flush()  # workers read it from here on
                sizes = np.array([len(line) for line in lines], np.int64)
                keys.extend(block_keys[new].tolist())
                lengths.extend(sizes.tolist())
                yield Block(block_keys[new], offset + np.cumsum(sizes) - sizes, sizes)
                offset += int(sizes.sum())
            sync_file(records)
            sync_file(rejected)
        summary.good = len(keys)
        if seen.repeated:
            summary.reasons[DUPLICATE] = seen.repeated
        self._save(summary, keys, lengths)

    def _checked_entries(
        self, path: Path, progress: Callable[[int], None] | None, summary: Summary, rejected: TextIO
    ) -> Iterator[list[tuple[str, bytes]]]:
        """Id and record of the good entries, a block at a time; counts and notes the others."""
        entries: list[tuple[str, bytes]] = []
        try:
            for raw in read_entries(path, progress):
                summary.entries += 1
                try:
                    entry_id = check_entry(raw, self.keep_masks)
                    entries.append((entry_id, encode_record(raw, self.columns)))
                except BadEntry as bad:
                    summary.reasons[bad.reason] = summary.reasons.get(bad.reason, 0) + 1
                    line = {"id": bad.id, "reason": bad.reason, "detail": bad.detail, "entry": summary.entries - 1}
                    rejected.write(json.dumps(line) + "\n")
                if len(entries) == BLOCK:
                    yield entries
                    entries = []
        except BrokenJson as broken:
            summary.broken = str(broken)
        yield entries

    def _save(self, summary: Summary, keys: array, lengths: array) -> None:
        """The index, then the summary that makes the catalog count; older catalogs go."""
        save_arrays(self._index, {"keys": np.array(keys, np.uint64), "lengths": np.array(lengths, np.uint32)})
        stored = {"identity": self.identity, "bytes": self.records.stat().st_size, "summary": asdict(summary)}
        write_json(self._summary, stored, indent=1)
        self.summary, self.complete = summary, True
        for other in self.root.glob("entries-*"):
            if other != self.folder:
                shutil.rmtree(other)

    def keys(self) -> np.ndarray | None:
        """(n,) uint64: of the good entries, in file order; None if the file has not been read yet."""
        return load_arrays(self._index)["keys"] if self.complete else None

    def bad_entries(self) -> Iterator[dict[str, Any]]:
        """``{"id", "reason", "detail", "entry"}`` of each entry that cannot be used, in file order."""
        if not self.rejected.is_file():
            return
        with open(self.rejected, encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    def require_entries(self) -> None:
        """Raise if the file held no usable entry at all."""
        if self.summary.good:
            return
        if self.summary.broken:
            raise UserError(self.summary.broken)
        found = (
            ", ".join(f"{count} x {reason}" for reason, count in self.summary.reasons.items()) or "the list is empty"
        )
        first = next(self.bad_entries(), None)
        example = f"; the first: {first['reason']}: {first['detail']}" if first and first["detail"] else ""
        raise UserError(f"convert.json: no usable entry among {self.summary.entries}: {found}{example}")
