"""What a data set holds at one moment: its generations, their fingerprints, the index of their shards.

The converter only ever appends generations, so a snapshot is named by the fingerprints of its generations in order,
and an older snapshot is a prefix of a newer one of the same data set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, overload

from theworld.data.entries.columns import MORE_IMAGES
from theworld.data.shards.remote_data_set import read_file
from theworld.errors import UserError


@dataclass(frozen=True)
class Generation:
    """One immutable part of the data set, as the manifest names it."""

    name: str
    samples: int
    shards: int
    fingerprint: str

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Snapshot:
    """The generations known at one moment, and one index entry per shard in the order of the generations."""

    source: str
    generations: tuple[Generation, ...]
    shards: tuple[dict[str, Any], ...]
    json_entries: int | None = None
    """How many entries the JSON names, arrived or not; None if the converter did not say."""
    json_samples: int | None = None
    """How many of them are or may still become samples of this data set; None if the converter did not say."""
    world_latents: dict[str, Any] | None = None
    """How the latents in the column ``world_latents`` were made; None if there is no such column."""

    @property
    def samples(self) -> int:
        return sum(generation.samples for generation in self.generations)

    @property
    def shard_sizes(self) -> list[int]:
        """Samples of each shard."""
        return [int(shard["samples"]) for shard in self.shards]

    @property
    def shard_bytes(self) -> list[int]:
        """Bytes of each shard as it is read, unpacked."""
        return [int(shard["raw_data"]["bytes"]) for shard in self.shards]

    @property
    def several_pictures(self) -> bool:
        """Whether there may be samples of several pictures."""
        return any(MORE_IMAGES in shard.get("column_names", ()) for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """Names the whole snapshot."""
        text = "\n".join(f"{generation.name} {generation.fingerprint}" for generation in self.generations)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def cache_entries(self) -> list[dict[str, Any]]:
        """The shards' index entries with the names that the cache has for them: in a folder for each generation that
        its fingerprint names, so that what another data set calls the same is another file."""
        entries: list[dict[str, Any]] = []
        for generation in self.generations:
            folder = f"{generation.name}-{generation.fingerprint[:16]}"
            for shard in self.shards[len(entries) : len(entries) + generation.shards]:
                entry = dict(shard)
                for key in ("raw_data", "zip_data"):
                    if shard.get(key):
                        name = str(shard[key]["basename"]).removeprefix(f"{generation.name}/")
                        entry[key] = {**shard[key], "basename": f"{folder}/{name}"}
                entries.append(entry)
        return entries

    def difference(self, known: Sequence[dict[str, Any]]) -> str | None:
        """How the first generations differ from those that a checkpoint knew; None if this snapshot continues them."""
        for place, expected in enumerate(known):
            if place >= len(self.generations):
                return f"generation {expected['name']} is missing"
            actual = self.generations[place]
            if actual.name != expected["name"]:
                return f"generation {expected['name']} is missing, {actual.name} stands in its place"
            if actual.fingerprint != expected["fingerprint"] or actual.samples != expected["samples"]:
                return f"generation {actual.name} has changed"
        return None


def mix(names: Sequence[str], snapshots: Sequence[Snapshot]) -> Snapshot:
    """Several data sets as one, whose generations have the data set's name in front; one without a name is itself."""
    if list(names) == [""]:
        return snapshots[0]
    named = [
        replace(generation, name=f"{name}/{generation.name}")
        for name, snapshot in zip(names, snapshots, strict=True)
        for generation in snapshot.generations
    ]
    return Snapshot(
        ", ".join(snapshot.source for snapshot in snapshots),
        tuple(named),
        tuple(shard for snapshot in snapshots for shard in snapshot.shards),
        total([snapshot.json_entries for snapshot in snapshots]),
        total([snapshot.json_samples for snapshot in snapshots]),
    )


def total(counts: Sequence[int | None]) -> int | None:
    """Their sum; None if one is not known."""
    return None if None in counts else sum(count for count in counts if count is not None)


@overload
def read_snapshot(source: str, split: str | None = None) -> Snapshot: ...


@overload
def read_snapshot(source: str, split: str | None, may_miss: bool) -> Snapshot | None: ...


def read_snapshot(source: str, split: str | None = None, may_miss: bool = False) -> Snapshot | None:
    """Read ``manifest.json`` and ``index.json`` of a data set.

    Args:
        source: a folder, or a URL that Streaming can download from.
        split: sub-folder of it.
        may_miss: give None where nothing is.

    Raises:
        UserError: nothing is there, or it is not an MDS data set.
    """
    where = f"{source.rstrip('/')}/{split}" if split else source.rstrip("/")
    manifest_text = read_file(where, "manifest.json")
    index_text = read_file(where, "index.json")
    if index_text is None and may_miss:
        return None
    if index_text is None:
        raise UserError(
            f"{where}: no index.json, so no MDS data set; run convert/to_mds.py, or set train_loader.dataset.remote"
        )
    try:
        shards = json.loads(index_text)["shards"]
        manifest = json.loads(manifest_text) if manifest_text is not None else None
        return build_snapshot(where, shards, manifest)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where}: index.json or manifest.json is damaged ({error}); run convert/to_mds.py") from error


def build_snapshot(where: str, shards: list[dict[str, Any]], manifest: dict[str, Any] | None) -> Snapshot:
    """Match the manifest's generations with the index's shards.

    The two files are replaced one after the other, so either may know one generation more; only what both know
    counts. A data set without a manifest, made by other tools, is one generation.
    """
    if manifest is None:
        content = json.dumps([[shard["raw_data"], shard["samples"]] for shard in shards], sort_keys=True)
        print_of_index = hashlib.sha256(content.encode()).hexdigest()
        total = sum(int(shard["samples"]) for shard in shards)
        return Snapshot(where, (Generation("all", total, len(shards), print_of_index),), tuple(shards))
    by_generation: dict[str, list[dict[str, Any]]] = {}
    for shard in shards:
        by_generation.setdefault(shard["raw_data"]["basename"].partition("/")[0], []).append(shard)
    generations: list[Generation] = []
    known_shards: list[dict[str, Any]] = []
    for entry in manifest["generations"]:
        members = by_generation.get(entry["name"], [])
        samples = sum(int(shard["samples"]) for shard in members)
        if len(members) != entry["shards"] or samples != entry["samples"]:
            break
        generations.append(Generation(entry["name"], samples, len(members), entry["fingerprint"]))
        known_shards += members
    said = {key: manifest.get(key) for key in ("json_entries", "json_samples", "world_latents")}
    return Snapshot(where, tuple(generations), tuple(known_shards), **said)
