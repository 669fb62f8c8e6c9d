"""The output folder: generations, and the root index and manifest over them.

Everything in the root files follows from the generations' own index.json, so a kill between any
two steps is mended by writing them again.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from theworld.data.entries.check_entry import id_key
from theworld.data.shards.mds import INDEX, index_bytes, read_ids, stored_info
from theworld.errors import UserError
from theworld.files import atomic_write, read_json, write_bytes, write_json

MANIFEST = "manifest.json"
REJECTED = "rejected.jsonl"
IDS = "ids.txt"
SOURCE = ".convert/source.json"
GENERATION = re.compile(r"gen-(\d{5,})")
MANIFEST_VERSION = 1


class DataSet:
    """An output folder.

    Args:
        root: the folder; need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._keys: dict[str, np.ndarray] = {}

    def generations(self) -> list[Path]:
        """Folders of the finished generations, oldest first."""
        if not self.root.is_dir():
            return []
        found = [path for path in self.root.iterdir() if GENERATION.fullmatch(path.name) and (path / INDEX).is_file()]
        return sorted(found, key=generation_number)

    def next_name(self) -> str:
        """Name of the generation that comes next."""
        names = self.generations()
        return f"gen-{generation_number(names[-1]) + 1 if names else 0:05}"

    def manifest(self) -> dict[str, Any]:
        """The manifest on disk; {} if there is none.

        Raises:
            UserError: it names a generation that is gone, or the folder holds another data set.
        """
        manifest = read_json(self.root / MANIFEST)
        if manifest is None:
            if (self.root / INDEX).exists() and not self.generations():
                raise UserError(f"convert.out: {self.root} holds a data set without generations; choose another folder")
            return {}
        there = {path.name for path in self.generations()}
        for generation in manifest["generations"]:
            if generation["name"] not in there:
                raise UserError(
                    f"convert.out: {self.root / generation['name']} is in {MANIFEST} but not there; "
                    "bring it back, or convert into another folder"
                )
        return manifest

    def written_keys(self) -> np.ndarray:
        """(samples,) uint64: keys of all ids written so far."""
        for folder in self.generations():
            if folder.name not in self._keys:
                keys = array("Q", (id_key(entry_id) for entry_id in iterate_ids(folder)))
                self._keys[folder.name] = np.array(keys, np.uint64)
        return np.concatenate([np.zeros(0, np.uint64), *self._keys.values()])

    def id_of(self, key: int) -> str:
        """The id of a written key."""
        ids = (entry_id for folder in self.generations() for entry_id in iterate_ids(folder))
        return next(entry_id for entry_id in ids if id_key(entry_id) == key)

    def samples(self) -> int:
        """Samples in all generations."""
        return sum(shard["samples"] for folder in self.generations() for shard in read_shards(folder))

    def refresh(
        self, lasting: dict[str, Any], json_entries: int | None = None, json_samples: int | None = None
    ) -> dict[str, Any]:
        """Bring index.json and manifest.json in line with the generations; writes only what differs.

        Args:
            lasting: settings that hold for every generation, kept in the manifest.
            json_entries: entries that the conversations file names; None: what the manifest says of it stays.
            json_samples: how many of them are or may still become samples of this data set; None as well.

        Returns:
            The manifest.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        before = read_json(self.root / MANIFEST) or {}
        shards, generations = [], []
        for folder in self.generations():
            own = read_shards(folder)
            generations.append(describe_generation(folder, own))
            shards += [with_folder(shard, folder.name) for shard in own]
        manifest = {
            "version": MANIFEST_VERSION,
            "samples": sum(generation["samples"] for generation in generations),
            "json_entries": before.get("json_entries") if json_entries is None else json_entries,
            "json_samples": before.get("json_samples") if json_samples is None else json_samples,
            **lasting,
            "generations": generations,
        }
        # The index first: a manifest never names what the index does not have yet.
        write_if_different(self.root / INDEX, index_bytes(shards))
        write_if_different(self.root / MANIFEST, json.dumps(manifest, indent=1).encode() + b"\n")
        return manifest

    def rejected_images(self) -> dict[str, dict[str, Any]]:
        """Id to line of rejected.jsonl, of images only (entries are checked again with the JSON)."""
        lines = {}
        path = self.root / REJECTED
        if path.is_file():
            for text in path.read_text(encoding="utf-8").splitlines():
                line = json.loads(text)
                if "mtime_ns" in line:
                    lines[line["id"]] = line
        return lines

    def remember_source(self, images: Path, named: Sequence[str] | None) -> None:
        """Write down where the pictures come from: ``convert.images`` and ``convert.image_folders``."""
        found = {"images": str(images.absolute()), "image_folders": list(named) if named is not None else None}
        if read_json(self.root / SOURCE) != found:
            write_json(self.root / SOURCE, found)

    def source(self) -> tuple[Path | None, list[str] | None]:
        """What :meth:`remember_source` wrote; None and None if nobody did."""
        known = read_json(self.root / SOURCE)
        return (Path(known["images"]), known["image_folders"]) if known else (None, None)

    def write_rejected(self, entries: Iterator[dict[str, Any]], images: dict[str, dict[str, Any]]) -> None:
        """Replace rejected.jsonl: bad entries in file order, then bad images by id."""
        lines = chain(entries, (images[entry_id] for entry_id in sorted(images)))
        with atomic_write(self.root / REJECTED) as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in lines)


def generation_number(folder: Path) -> int:
    match = GENERATION.fullmatch(folder.name)
    assert match is not None
    return int(match[1])


def read_shards(folder: Path) -> list[dict[str, Any]]:
    """Shard entries of a generation's index.json."""
    index = read_json(folder / INDEX)
    if not isinstance(index, dict) or "shards" not in index:
        raise UserError(f"{folder / INDEX}: damaged; bring it back from a copy, or convert into another folder")
    return index["shards"]


def describe_generation(folder: Path, shards: list[dict[str, Any]]) -> dict[str, Any]:
    """The generation's entry in the manifest. The fingerprint is the SHA-256 of its index.json."""
    return {
        "name": folder.name,
        "samples": sum(shard["samples"] for shard in shards),
        "shards": len(shards),
        "bytes": sum(stored_info(shard)["bytes"] for shard in shards),
        "fingerprint": hashlib.sha256((folder / INDEX).read_bytes()).hexdigest(),
    }


def with_folder(shard: dict[str, Any], folder: str) -> dict[str, Any]:
    """A shard entry as the root index needs it, its files below ``folder``."""
    moved = dict(shard)
    for key in ("raw_data", "zip_data"):
        if shard[key]:
            moved[key] = {**shard[key], "basename": f"{folder}/{shard[key]['basename']}"}
    return moved


def generation_ids(folder: Path) -> list[str]:
    """Ids of a generation in order; see :func:`iterate_ids`."""
    return list(iterate_ids(folder))


def iterate_ids(folder: Path) -> Iterator[str]:
    """Ids of a generation in order, from ids.txt, or from the shards if that was lost.

    Raises:
        UserError: ids.txt is lost and the shards cannot be read for it.
    """
    shards = read_shards(folder)
    path = folder / IDS
    if count_lines(path) == sum(shard["samples"] for shard in shards):
        with open(path, encoding="utf-8", newline="\n") as lines:
            yield from (line.rstrip("\n") for line in lines)
        return
    try:
        for shard in shards:
            yield from read_ids(folder / shard["raw_data"]["basename"])
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: lost, and the shards cannot be read instead ({error}); bring it back") from error


def count_lines(path: Path) -> int:
    """Lines of a file; 0 if it is not there."""
    try:
        with open(path, "rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    except FileNotFoundError:
        return 0


def write_if_different(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    write_bytes(path, content)
