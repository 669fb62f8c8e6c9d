"""A generation that is being written: begun, resumed after a kill, published."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from theworld.data.entries.check_entry import id_key
from theworld.data.entries.images import ImageTable, positions
from theworld.data.shards.dataset import IDS, DataSet
from theworld.data.shards.left_to_write import image_keys
from theworld.data.shards.mds import INDEX, index_bytes
from theworld.data.shards.shard_plan import EVALUATION, NOTHING, PARTS, TRAIN
from theworld.files import (
    atomic_write,
    load_arrays,
    read_json,
    remove_temporaries,
    save_arrays,
    sync_path,
    write_bytes,
    write_json,
)

SNAPSHOT = "snapshot.json"
IMAGES = "images"
SKIP = "skip"
READY = "ready.json"
LASTING = ("keep_masks", "holdout", "format", "boxes")  # the settings that every generation of a data set shares


class Pending:
    """The working folder of one generation: the snapshot it follows from, its shards, their fragments.

    Attributes:
        folder: where it is.
        snapshot: ``planning`` settings, ``source`` of the JSON, ``targets`` part to generation name, ``limit``.
        images: the images to convert, as they were when it was begun.
        skip: (m,) uint64, sorted: keys of the samples that are not to be written, although their image is among these.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.snapshot: dict[str, Any] = json.loads((folder / SNAPSHOT).read_bytes())
        self.images = ImageTable.load(folder / IMAGES)
        self.skip = load_arrays(folder / SKIP)[SKIP] if (folder / SKIP).is_file() else NOTHING

    @classmethod
    def begin(cls, state: Path, snapshot: dict[str, Any], images: ImageTable, skip: np.ndarray = NOTHING) -> Pending:
        """A new one. Its name holds a hash of the snapshot, so that different plans never share a folder."""
        new = state / f"new-{os.getpid()}"
        for part in (*PARTS, "fragments"):
            (new / part).mkdir(parents=True)
        images.save(new / IMAGES)
        if len(skip):
            save_arrays(new / SKIP, {SKIP: skip})
        content = json.dumps(snapshot, sort_keys=True).encode()
        write_bytes(new / SNAPSHOT, content)
        digest = hashlib.sha256(content)
        digest.update((new / IMAGES).read_bytes())
        digest.update(skip.tobytes())
        folder = state / f"pending-{digest.hexdigest()[:16]}"
        os.replace(new, folder)
        sync_path(state)
        return cls(folder)

    @classmethod
    def find(cls, state: Path) -> Pending | None:
        """The one that an earlier run left, if any. What a kill left beside it is removed."""
        for path in [*state.glob("new-*"), *state.glob("done-*")]:
            shutil.rmtree(path)
        folders = sorted(state.glob("pending-*"))
        if not folders:
            return None
        for part in (*PARTS, "fragments"):
            if (folders[0] / part).is_dir():
                remove_temporaries(folders[0] / part)
        return cls(folders[0])

    @property
    def ready(self) -> dict[str, Any] | None:
        """What :meth:`close` stored: every shard is finished."""
        return read_json(self.folder / READY)

    def fits(self, train: DataSet, evaluation: DataSet) -> bool:
        """Whether the name of every part that is not published yet is still free in its data set."""
        targets = self.snapshot["targets"]
        return all(
            data_set.next_name() == targets[part] or not (self.folder / part).is_dir()
            for part, data_set in ((TRAIN, train), (EVALUATION, evaluation))
        )

    def discard(self) -> None:
        """Drop it with its shards; renamed first, so that a kill does not leave half of it to be found."""
        done = self.folder.with_name(f"done-{self.folder.name}")
        os.replace(self.folder, done)
        shutil.rmtree(done)

    def fragments(self, part: str) -> Iterator[dict[str, Any]]:
        """Of the finished shards of a part, in order."""
        paths = {int(path.stem.rpartition("-")[2]): path for path in (self.folder / "fragments").glob(f"{part}-*.json")}
        for number in sorted(paths):
            yield json.loads(paths[number].read_bytes())

    def close(self, json_entries: int) -> None:
        """Once every shard is finished: each part's index and ids, and the rejected images."""
        rejected = []
        samples = {}
        for part in PARTS:
            shards = []
            folder = self.folder / part
            with atomic_write(folder / IDS) as file:
                for fragment in self.fragments(part):
                    file.write("".join(f"{entry_id}\n" for entry_id in fragment["ids"]).encode("utf-8"))
                    rejected += fragment["rejected"]
                    if fragment["shard"]:
                        shards.append(fragment["shard"])
            if shards:
                write_bytes(folder / INDEX, index_bytes(shards))
                sync_path(folder)  # the renamed shards too
            samples[part] = sum(shard["samples"] for shard in shards)
        ready = {"samples": samples, "rejected": rejected, "json_entries": json_entries}
        write_json(self.folder / READY, ready)
        sync_path(self.folder)

    def publish(self, train: DataSet, evaluation: DataSet) -> None:
        """Move the finished parts to their data sets. Safe to repeat after a kill at any step."""
        ready = self.ready
        assert ready is not None
        lasting = {key: value for key, value in self.snapshot["planning"].items() if key in LASTING}
        for part, data_set in ((EVALUATION, evaluation), (TRAIN, train)):
            source = self.folder / part
            if not ready["samples"][part] or not source.is_dir():
                continue
            data_set.root.mkdir(parents=True, exist_ok=True)
            os.replace(source, data_set.root / self.snapshot["targets"][part])
            sync_path(data_set.root)
        for part, data_set in ((EVALUATION, evaluation), (TRAIN, train)):
            if part == TRAIN or data_set.generations():
                data_set.refresh(lasting, ready["json_entries"])

    def merge_rejected(self, known: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Rejected images known before, with what this generation found put over it."""
        ready = self.ready
        assert ready is not None
        tried = positions(self.images.keys, image_keys(known))[1]
        tried &= ~positions(self.skip, np.array([id_key(entry_id) for entry_id in known], np.uint64))[1]
        kept = dict(compress(known.items(), ~tried))
        return kept | {line["id"]: line for line in ready["rejected"]}
