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

from theworld.data.entries.check_entry import BadEntry, id_key
from theworld.data.entries.columns import ABOUT, MASKS, columns_with, of_entry
from theworld.data.entries.formats.entry_format import EntryFormat, Parsed
from theworld.data.entries.formats.openspatial import OpenSpatial
from theworld.data.entries.picture_sets import TEXT_ALONE, PictureSets
from theworld.data.entries.picture_spool import PictureSpool
from theworld.data.entries.read_source import read_source
from theworld.data.entries.repeated_ids import SeenKeys, Suffixes
from theworld.data.entries.stream import BrokenJson
from theworld.errors import UserError
from theworld.files import load_arrays, read_json, save_arrays, sync_file, write_json

VERSION = 2
BLOCK = 1024
DUPLICATE = "id named more than once"
IMAGES = "images"
"""Of the index, where the images' names are not the ids."""


@dataclass
class Block:
    """Entries in file order, each id once; n rows.

    Attributes:
        keys: (n,) uint64, :func:`~theworld.data.entries.check_entry.id_key` of the ids, by which samples are known.
        images: (n,) uint64, the same of the images' names, by which files are found; several entries may have one.
        offsets: (n,) int64, where the record starts, in bytes.
        lengths: (n,) int64, bytes of the record with its newline.
    """

    keys: np.ndarray
    images: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray


@dataclass
class Summary:
    """What the pass over the file found.

    Attributes:
        entries: entries in the file, good or not.
        good: entries that can become samples.
        example: image's name of the first good entry, or "".
        reasons: reason to number of entries that it ruled out.
        suffixed: good entries whose id was there before, so that theirs bears a number.
        broken: the line to show if the file is not JSON to its end.
    """

    entries: int = 0
    good: int = 0
    example: str = ""
    reasons: dict[str, int] = field(default_factory=dict)
    suffixed: int = 0
    broken: str | None = None


class Names:
    """Gives each good entry an id of its own, or drops it.

    Args:
        by_path: entries that repeat an id have other contents, and get a number; else the first one counts.
    """

    def __init__(self, by_path: bool) -> None:
        self.by_path = by_path
        self.seen = SeenKeys()
        self.suffixes = Suffixes()
        self.dropped = 0

    def take(self, entries: list[Parsed]) -> tuple[np.ndarray, list[Parsed]]:
        """The keys (m,) uint64 of the entries that stay, and these, in their order."""
        keys = np.array([id_key(entry.id) for entry in entries], np.uint64)
        new = self.seen.add(keys)
        if self.by_path and not new.all():
            entries = [entry if first else self._renamed(entry) for entry, first in zip(entries, new, strict=True)]
            keys[~new] = [id_key(entry.id) for entry in compress(entries, ~new)]
            new[~new] = self.seen.add(keys[~new])
        self.dropped += int((~new).sum())
        return keys[new], list(compress(entries, new))

    def _renamed(self, entry: Parsed) -> Parsed:
        name = self.suffixes.next_name(entry.id)
        return Parsed(name, entry.image, name.encode() + entry.line[len(entry.id.encode()) :])


class Catalog:
    """The parsed form of one state of one conversations file.

    Args:
        root: folder that holds catalogs.
        identity: what tells one state of the source from another (place, size, time).
        keep_masks: whether records carry the masks.
        form: reads the entries.
        spool: where pictures go that are inside of entries; None: they are left there.
    """

    def __init__(
        self,
        root: Path,
        identity: dict[str, Any],
        keep_masks: bool,
        form: EntryFormat | None = None,
        spool: PictureSpool | None = None,
    ) -> None:
        self.spool = spool
        self.form: EntryFormat = form or OpenSpatial()
        self.columns = of_entry(columns_with(**{MASKS: keep_masks, ABOUT: self.form.by_path}))
        names = [column.name for column in self.columns]
        self.identity = {"version": VERSION, "columns": names, **identity, **self.form.identity}
        if spool is not None:
            self.identity["pictures"] = "inside"
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
        if self.spool is not None and not self.spool.folder.is_dir():
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
        images = stored.get(IMAGES, keys)
        offsets = np.cumsum(lengths) - lengths
        for start in range(0, len(keys), BLOCK):
            rows = slice(start, start + BLOCK)
            yield Block(keys[rows], images[rows], offsets[rows], lengths[rows])

    def _parsed_blocks(self, path: Path, progress: Callable[[int], None] | None) -> Iterator[Block]:
        self.folder.mkdir(parents=True, exist_ok=True)
        summary = Summary()
        names = Names(self.form.by_path)
        keys, images, lengths, offset = array("Q"), array("Q"), array("Q"), 0
        sets = PictureSets()
        with open(self.records, "wb") as records, open(self.rejected, "w", encoding="utf-8") as rejected:
            for entries in self._checked_entries(path, progress, summary, rejected):
                block_keys, new_entries = names.take(entries)
                if not new_entries:
                    continue
                summary.example = summary.example or entries[0].image
                records.writelines(entry.line for entry in new_entries)
                records.flush()  # workers read it from here on
                sizes = np.array([len(entry.line) for entry in new_entries], np.int64)
                keys.extend(block_keys.tolist())
                lengths.extend(sizes.tolist())
                block_images = block_keys
                if self.form.by_path:
                    block_images = np.array([id_key(entry.image) for entry in new_entries], np.uint64)
                    images.extend(block_images.tolist())
                    for entry in new_entries:
                        sets.add(entry.image)
                yield Block(block_keys, block_images, offset + np.cumsum(sizes) - sizes, sizes)
                offset += int(sizes.sum())
            sync_file(records)
            sync_file(rejected)
        summary.good, summary.suffixed = len(keys), names.suffixes.count
        if names.dropped:
            summary.reasons[DUPLICATE] = names.dropped
        self._save(summary, keys, images, lengths, sets)

    def _checked_entries(
        self, path: Path, progress: Callable[[int], None] | None, summary: Summary, rejected: TextIO
    ) -> Iterator[list[Parsed]]:
        """The good entries, a block at a time; counts and notes the others."""
        entries: list[Parsed] = []
        try:
            for raw in read_source(path, progress):
                summary.entries += 1
                try:
                    whole = raw if self.spool is None else self.spool.take(raw)
                    entries.append(self.form.parse(whole, self.columns, self.keep_masks))
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

    def _save(self, summary: Summary, keys: array, images: array, lengths: array, sets: PictureSets) -> None:
        """The index, then the summary that makes the catalog count; older catalogs go."""
        own = {IMAGES: np.array(images, np.uint64), **sets.arrays()} if self.form.by_path else {}
        save_arrays(self._index, {"keys": np.array(keys, np.uint64), "lengths": np.array(lengths, np.uint32), **own})
        stored = {"identity": self.identity, "bytes": self.records.stat().st_size, "summary": asdict(summary)}
        write_json(self._summary, stored, indent=1)
        self.summary, self.complete = summary, True
        for other in self.root.glob("entries-*"):
            if other != self.folder:
                shutil.rmtree(other)

    def keys(self) -> np.ndarray | None:
        """(n,) uint64: of the good entries, in file order; None if the file has not been read yet."""
        return load_arrays(self._index)["keys"] if self.complete else None

    def image_keys(self) -> np.ndarray | None:
        """(n,) uint64: of the images that they name, in the same order; None as well."""
        if not self.complete:
            return None
        stored = load_arrays(self._index)
        return stored.get(IMAGES, stored["keys"])

    def sets(self) -> PictureSets:
        """The entries of several images and of none, of a complete catalog."""
        stored = load_arrays(self._index)
        return PictureSets.of_index(stored, stored.get(IMAGES, stored["keys"]))

    def file_keys(self) -> np.ndarray | None:
        """(n,) uint64: of the image files that they need, those of an entry in a row; None as well."""
        images = self.image_keys()
        return None if images is None else self.sets().only_files(images)

    def counts_of_images(self) -> tuple[int, int]:
        """Good entries of several images, and of none, of a complete catalog."""
        images, sets = self.image_keys(), self.sets()
        assert images is not None
        several = np.isin(images, sets.arrays().get("set_keys", images[:0]))
        return int(several.sum()), int((images == np.uint64(TEXT_ALONE)).sum())

    def read(self, json_path: Callable[[], Path], progress: Callable[[int], None] | None = None) -> None:
        """Read the file if it has not been read yet; see :meth:`blocks`."""
        if not self.complete:
            for _ in self.blocks(json_path, progress):
                pass

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
