"""Are the samples still of the pictures in the image folder? One may have been replaced, or a better one found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from theworld.data.entries.check_entry import id_key
from theworld.data.entries.images import ImageTable, positions
from theworld.data.entries.scan import scan_images
from theworld.data.shards.dataset import DataSet, read_shards
from theworld.data.shards.read_shard import OpenShard
from theworld.errors import UserError
from theworld.progress import Progress


@dataclass
class Comparison:
    """What became of the samples' pictures.

    Attributes:
        same: samples whose picture is the file that a conversion would take today, byte for byte.
        gone: samples for whose id it would take none.
        replaced: id and path of the others, in the order of the samples.
    """

    same: int = 0
    gone: int = 0
    replaced: list[tuple[str, str]] = field(default_factory=list)


def compare_source(root: Path, images: Path | None = None) -> Comparison:
    """Hold every sample's picture against the image folder.

    Args:
        root: a folder that the converter wrote.
        images: the image folder; None: the one of the newest conversion.

    Raises:
        UserError: it is not known, or cannot be read; or a shard cannot.
    """
    data_set = DataSet(root)
    known_images, named = data_set.source()
    folder = images or known_images
    if folder is None:
        raise UserError(f"{root}: does not say where its images came from; give their folder: --source IMAGES")
    compare = partial(compare_shard, images=folder, scan=scan_images(folder, named))
    shards = [(generation, entry) for generation in data_set.generations() for entry in read_shards(generation)]
    result = Comparison()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        compared = pool.map(lambda shard: compare(*shard), shards)
        for one in Progress(len(shards), "shards", "source").follow(compared):
            result.same += one.same
            result.gone += one.gone
            result.replaced += one.replaced
    return result


def compare_shard(generation: Path, entry: dict[str, Any], images: Path, scan: ImageTable) -> Comparison:
    """The same for one shard."""
    result = Comparison()
    for sample_id, data in read_pictures(generation, entry):
        rows, there = positions(scan.keys, np.array([id_key(sample_id)], np.uint64))
        path = scan.path(int(rows[0])) if there[0] else None
        if path is None or (size := file_size(images / path)) is None:
            result.gone += 1
        elif size == len(data) and (images / path).read_bytes() == data:
            result.same += 1
        else:
            result.replaced.append((sample_id, path))
    return result


def read_pictures(generation: Path, entry: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Id and image file of each sample of a shard."""
    try:
        shard = OpenShard(generation, entry)
        for place in range(entry["samples"]):
            sample = shard.reader[place]
            yield sample["id"], sample["image"]
    except (OSError, ValueError, IndexError, KeyError) as error:
        name = entry["raw_data"]["basename"]
        raise UserError(f"{generation}: {name} cannot be read ({error}); bring it back from a copy") from error


def file_size(path: Path) -> int | None:
    """In bytes; None if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
