"""Is a data set what its manifest says? Every shard re-read against its hash."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from theworld.data.entries.check_entry import id_key
from theworld.data.shards.dataset import (
    GENERATION,
    IDS,
    MANIFEST,
    DataSet,
    describe_generation,
    iterate_ids,
    read_shards,
    with_folder,
)
from theworld.data.shards.mds import HASH, INDEX, index_bytes, read_ids, stored_info
from theworld.errors import UserError
from theworld.files import read_json
from theworld.progress import Progress

CHUNK = 1 << 22


@dataclass
class Verification:
    """What was looked at, and each thing that is wrong with it, a line each."""

    generations: int = 0
    shards: int = 0
    samples: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)


def verify(root: Path) -> Verification:
    """Compare shards, ids, indexes and manifest with each other.

    Args:
        root: a folder that the converter wrote (``convert.out``).

    Raises:
        UserError: there is no such data set in the folder.
    """
    manifest = read_json(root / MANIFEST)
    if not isinstance(manifest, dict) or "generations" not in manifest:
        raise UserError(f"{root}: no {MANIFEST} of a converted data set in it; give the folder of convert.out")
    result = Verification()
    folders = {folder.name: folder for folder in DataSet(root).generations()}
    named = {generation["name"]: generation for generation in manifest["generations"]}
    for name in sorted(named.keys() - folders.keys()):
        result.problems.append(f"{name}: in {MANIFEST}, but not there")
    for name in sorted(folders.keys() - named.keys()):
        result.problems.append(f"{name}: there, but not in {MANIFEST}; run the converter again")
    root_shards: list[dict[str, Any]] = []
    keys: list[int] = []
    for name, folder in folders.items():
        try:
            shards = read_shards(folder)
        except UserError as error:
            result.problems.append(str(error))
            continue
        if name in named and named[name] != describe_generation(folder, shards):
            result.problems.append(f"{name}: {INDEX} is not the one that {MANIFEST} describes")
        root_shards += [with_folder(shard, name) for shard in shards]
        result.generations += 1
        result.samples += sum(shard["samples"] for shard in shards)
        check_shards(folder, shards, result)
        try:
            keys += [id_key(entry_id) for entry_id in iterate_ids(folder)]
        except UserError as error:
            result.problems.append(str(error))
    repeated = len(keys) - len(np.unique(np.array(keys, np.uint64)))
    if repeated:
        result.problems.append(f"{repeated} ids are there more than once")
    if manifest["samples"] != result.samples:
        result.problems.append(f"{MANIFEST} counts {manifest['samples']} samples, the shards hold {result.samples}")
    if not (root / INDEX).is_file() or (root / INDEX).read_bytes() != index_bytes(root_shards):
        result.problems.append(f"{INDEX}: not the sum of the generations; run the converter again")
    return result


def check_shards(folder: Path, shards: list[dict[str, Any]], result: Verification) -> None:
    """Re-read the shards of a generation in threads (reading and hashing let the interpreter go)."""
    assert GENERATION.fullmatch(folder.name)
    ids = (folder / IDS).read_text(encoding="utf-8").split("\n")[:-1] if (folder / IDS).is_file() else None
    if ids is None:
        result.problems.append(f"{folder.name}/{IDS}: not there")
    expected = shard_ids(ids, shards)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        checks = pool.map(lambda pair: check_shard(folder, *pair), zip(shards, expected, strict=True))
        progress = Progress(len(shards), "shards", folder.name)
        for shard, problem in progress.follow(zip(shards, checks, strict=True)):
            result.shards += 1
            result.bytes += stored_info(shard)["bytes"]
            if problem:
                result.problems.append(f"{folder.name}/{stored_info(shard)['basename']}: {problem}")


def shard_ids(ids: list[str] | None, shards: list[dict[str, Any]]) -> Iterator[list[str] | None]:
    """The part of ids.txt that belongs to each shard."""
    start = 0
    for shard in shards:
        yield None if ids is None else ids[start : start + shard["samples"]]
        start += shard["samples"]


def check_shard(folder: Path, shard: dict[str, Any], ids: list[str] | None) -> str | None:
    """What is wrong with one shard file, or None."""
    info = stored_info(shard)
    path = folder / info["basename"]
    digest = xxhash.xxh128()
    size = 0
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
        if size != info["bytes"]:
            return f"{size} bytes, expected {info['bytes']}"
        if digest.hexdigest() != info["hashes"][HASH]:
            return "its bytes are not those that were written (hash differs)"
        if ids is not None and shard["zip_data"] is None and read_ids(path) != ids:
            return f"its ids are not those in {IDS}"
    except FileNotFoundError:
        return "not there"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None
