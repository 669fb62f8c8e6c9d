"""Are the samples still of the pictures in the image folder? One may have been replaced, or a better one found."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from theworld.data.entries.check_entry import id_key, image_id
from theworld.data.entries.columns import ABOUT
from theworld.data.entries.images import ImageTable, positions
from theworld.data.entries.scan import scan_images
from theworld.data.entries.tar_images import place_of
from theworld.data.samples.decode import stored_pictures
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
    shards = [(generation, entry) for generation in data_set.generations() for entry in read_shards(generation)]
    by_path = any(ABOUT in entry["column_names"] for _, entry in shards)
    compare = partial(compare_shard, images=folder, scan=scan_images(folder, named, by_path=by_path))
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
    for sample_id, pictures in read_pictures(generation, entry):
        found = [compare_picture(images, scan, name, data) for name, data in pictures]
        if "" in found:
            result.gone += 1
        elif changed := next(filter(None, found), None):
            result.replaced.append((sample_id, changed))
        else:
            result.same += 1
    return result


def compare_picture(images: Path, scan: ImageTable, name: str, data: bytes) -> str | None:
    """The path of a picture's file if that is another one; "" if there is none."""
    rows, there = positions(scan.keys, np.array([id_key(name)], np.uint64))
    path = scan.path(int(rows[0])) if there[0] else None
    if path is None or (size := file_size(images / place_of(path).file)) is None:
        return ""
    return None if is_there(images, path, size, data) else path


def read_pictures(generation: Path, entry: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Id of each sample of a shard, and of its images name and file."""
    try:
        shard = OpenShard(generation, entry)
        for place in range(entry["samples"]):
            sample = shard.reader[place]
            files = [picture.data for picture in stored_pictures(sample)]
            yield sample["id"], list(zip(image_names(sample), files, strict=True))
    except (OSError, ValueError, IndexError, KeyError) as error:
        name = entry["raw_data"]["basename"]
        raise UserError(f"{generation}: {name} cannot be read ({error}); bring it back from a copy") from error


def image_names(sample: Mapping[str, Any]) -> list[str]:
    """By which its files are found: its id, or the paths without suffix that its entry named."""
    if ABOUT not in sample:
        return [sample["id"]]
    about = sample[ABOUT]
    return [image_id(path) for path in about.get("images") or ([about["image"]] if "image" in about else [])]


def is_there(images: Path, path: str, size: int, data: bytes) -> bool:
    """Whether a file of this size, or what is inside of it, has these bytes."""
    file, offset, _ = place_of(path)
    if offset is None:
        return size == len(data) and (images / file).read_bytes() == data
    with open(images / file, "rb") as archive:
        archive.seek(offset)
        return archive.read(len(data)) == data


def file_size(path: Path) -> int | None:
    """In bytes; None if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
