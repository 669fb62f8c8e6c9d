"""Samples of generations that were written before the annotation's size was kept, held against the JSON of today.

Shards never change, so that nothing can be mended there: boxes of another size of the picture stay where they are. But
whoever trains on them should know, so each such generation is checked once.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from theworld.data.entries.catalog import Block, Catalog
from theworld.data.entries.check_entry import id_key
from theworld.data.entries.columns import ANNOTATION_SIZE, FIXED, split_record
from theworld.data.entries.frame import SAME, UNKNOWN, fit, orientation_of
from theworld.data.entries.images import positions
from theworld.data.shards.dataset import DataSet, describe_generation, read_shards
from theworld.data.shards.mds import read_columns
from theworld.files import read_json, write_json
from theworld.progress import Progress

CHECKED = "frames-of-before.json"
SIZE = FIXED["int32"]


@dataclass(frozen=True)
class Annotations:
    """The annotation's size of each entry, from the catalog's records.

    Attributes:
        catalog: a complete one.
        entries: all its entries, sorted by key.
    """

    catalog: Catalog
    entries: Block

    @classmethod
    def of(cls, catalog: Catalog, blocks: Iterator[Block]) -> Annotations:
        """Of a catalog, given its entries in file order."""
        found = list(blocks)
        names = ("keys", "images", "offsets", "lengths")
        keys, images, offsets, lengths = (np.concatenate([getattr(block, name) for block in found]) for name in names)
        order = np.argsort(keys)
        return cls(catalog, Block(keys[order], images[order], offsets[order], lengths[order]))

    def sizes(self, ids: list[str]) -> list[list[int] | None]:
        """``[height, width]`` for each id; empty or None if its entry has none, or is not there any more."""
        rows, there = positions(self.entries.keys, np.array([id_key(one) for one in ids], np.uint64))
        sizes: list[list[int] | None] = []
        with open(self.catalog.records, "rb") as records:
            for row, known in zip(rows, there, strict=True):
                if not known:
                    sizes.append(None)
                    continue
                records.seek(int(self.entries.offsets[row]))
                fields = split_record(records.read(int(self.entries.lengths[row])), self.catalog.columns)
                sizes.append(json.loads(fields[ANNOTATION_SIZE]))
        return sizes


def check_before(data_set: DataSet, state: Path, catalog: Catalog, blocks: Iterator[Block]) -> dict[str, list[Any]]:
    """Kind to ``[count, example]`` of the samples of such generations (:mod:`theworld.data.entries.frame`).

    What could not be looked at counts as of unknown size: its shard is damaged or only in an object store, from where
    all would have to be fetched for it, or its entry is gone.

    Args:
        data_set: its generations that have the column are passed over.
        state: folder that keeps what was found, for the runs to come.
        catalog: a complete one, read by this release.
        blocks: its entries; taken only if there is something to check.
    """
    old = [one for one in data_set.generations() if ANNOTATION_SIZE not in read_shards(one)[0]["column_names"]]
    checked = read_json(state / CHECKED) or {}
    annotations: Annotations | None = None
    total: dict[str, list[Any]] = {}
    for folder in old:
        shards = read_shards(folder)
        name = f"{data_set.root.name}/{folder.name} {describe_generation(folder, shards)['fingerprint']}"
        if name not in checked:
            annotations = annotations or Annotations.of(catalog, blocks)
            checked[name] = check_generation(folder, shards, annotations)
            write_json(state / CHECKED, checked)
        for kind, (count, example) in checked[name].items():
            total.setdefault(kind, [0, example])[0] += count
    return total


def check_generation(folder: Path, shards: list[dict[str, Any]], annotations: Annotations) -> dict[str, list[Any]]:
    """The same for one generation."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for shard in Progress(len(shards), "shards", f"{folder.name}, boxes").follow(shards):
        try:
            content = open_shard(folder, shard)
            samples = list(read_columns(content, ("id", "width", "height")))
        except (OSError, ValueError, struct.error):  # convert/verify.py says what is wrong with it, if anything is
            counts[UNKNOWN] += shard["samples"]
            continue
        ids = [sample["id"].decode() for sample in samples]
        for place, (sample, annotated) in enumerate(zip(samples, annotations.sizes(ids), strict=True)):
            picture = SIZE.unpack(sample["width"])[0], SIZE.unpack(sample["height"])[0]
            # An annotation without a size says nothing of any picture, so it cannot be wrong.
            kind = SAME if annotated == [] else fit(annotated, picture, partial(stored_orientation, content, place))
            counts[kind] += 1
            examples.setdefault(kind, ids[place])
    return {kind: [count, examples.get(kind, "")] for kind, count in counts.items() if kind != SAME}


def open_shard(folder: Path, shard: dict[str, Any]) -> Path | bytes:
    """The file of a shard of a generation; what is in it where it is packed."""
    if not shard["zip_data"]:
        return folder / shard["raw_data"]["basename"]
    from theworld.data.shards.read_shard import unpack  # Streaming takes seconds to load

    return unpack(folder, shard)


def stored_orientation(shard: Path | bytes, place: int) -> int:
    """EXIF's orientation of one picture of a shard."""
    (sample,) = read_columns(shard, ("image",), [place])
    return orientation_of(sample["image"])
