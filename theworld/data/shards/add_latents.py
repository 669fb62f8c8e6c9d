"""Add world latents to generations that exist, in a data set of their own beside the images.

``OUT/world_latents/`` is an MDS data set with the columns ``id`` and ``world_latents``: for every generation of ``OUT``
one of the same name, for every shard one with as many samples in the same order. ``OUT`` itself does not change.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from streaming import MDSWriter
from torch.utils.data import DataLoader

from theworld.config.schema import MISSING, Config
from theworld.data.latents.latent_encoder import LatentEncoder, devices
from theworld.data.latents.record import COLUMN, LatentRecord, resolve_record
from theworld.data.shards.dataset import IDS, MANIFEST, DataSet, iterate_ids, read_shards
from theworld.data.shards.lock import exclusive_lock
from theworld.data.shards.mds import HASH, INDEX, index_bytes
from theworld.data.shards.pictures import Pictures, first_of_batch
from theworld.errors import UserError
from theworld.files import atomic_write, read_json, sync_path, write_bytes, write_json
from theworld.processes import end_with_parent
from theworld.progress import Progress

RECORD = "record.json"
FRAGMENTS = ".fragments"
ASIDE = ".aside-"
BATCH = {"cuda": 16, "cpu": 2}
"""Pictures that are encoded together: a picture of 512 x 512 takes some 500 MB in float32."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger(__name__)


@dataclass
class Added:
    """What a run has added."""

    samples: int = 0
    before: int = 0
    """Samples that had latents already."""
    bytes: int = 0
    seconds: float = 0.0
    generations: list[str] = field(default_factory=list)


def add_latents(config: Config) -> Added:
    """Compute the latents of every generation of ``convert.out`` and of its held-out share that has none yet.

    Killed at any moment and run again, it goes on after the last finished shard.

    Raises:
        UserError: no data set there, latents of another kind there, a full disk, or no VAE.
    """
    out = config.convert.out
    if out in (MISSING, ""):
        raise UserError("convert.out is not set; set it in the YAML or as convert.out=PATH")
    if "://" in out:
        raise UserError(f"convert.out: {out}: latents are added to folders only; for a URL set convert.world_latents")
    roots = [root for root in (Path(out), Path(f"{out.rstrip('/')}-eval")) if DataSet(root).generations()]
    if not roots:
        raise UserError(f"convert.out: {out}: no data set there; run convert/to_mds.py first")
    record, vae = resolve_record(config.model, config.train_loader.dataset.draw_bboxes, weights=True)
    started = time.monotonic()
    added = Added()
    maker = Maker(record, vae.folder, config.convert.workers)
    try:
        for root in roots:
            add_to(root, record, maker, added)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise UserError(f"{out}: the disk is full; finished shards are kept, free some space and run again") from error
    added.seconds = time.monotonic() - started
    return added


def add_to(root: Path, record: LatentRecord, maker: Maker, added: Added) -> None:
    """Bring the latents of one data set up to date."""
    if (read_json(root / MANIFEST) or {}).get(COLUMN):
        logger.info("%s: has its latents in its own shards", root)
        added.before += DataSet(root).samples()
        return
    store = DataSet(root / COLUMN)
    store.root.mkdir(exist_ok=True)
    with exclusive_lock(store.root / ".lock", str(store.root)):
        check_record(store.root, record)
        for generation in DataSet(root).generations():
            target = store.root / generation.name
            if (target / INDEX).is_file():
                check_ids(generation, target)
                added.before += sum(shard["samples"] for shard in read_shards(target))
                continue
            shards = write_generation(generation, store.root / f".{generation.name}", maker)
            os.replace(store.root / f".{generation.name}", target)
            sync_path(store.root)
            shutil.rmtree(target / FRAGMENTS)
            store.refresh({COLUMN: record.to_json()})
            added.generations.append(f"{root.name}/{generation.name}")
            added.samples += sum(shard["samples"] for shard in shards)
            added.bytes += sum(shard["raw_data"]["bytes"] for shard in shards)
        store.refresh({COLUMN: record.to_json()})


def check_record(store: Path, record: LatentRecord) -> None:
    """Latents of two kinds must not mix; the first run says which kind it is."""
    content = read_json(store / RECORD)
    if content is None:
        write_bytes(store / RECORD, json.dumps(record.to_json(), indent=1).encode() + b"\n")
        return
    difference = LatentRecord.read(str(store), content).difference(record)
    if difference is not None:
        raise UserError(f"{difference}, in {store}; keep that, or remove the folder to recompute them")


def check_ids(generation: Path, latents: Path) -> None:
    """Latents made of a data set that was replaced since are of no use."""
    if not same_ids(latents / IDS, generation):
        raise UserError(f"{latents}: its samples are not those of {generation}; remove {latents.parent} and run again")


def same_ids(path: Path, generation: Path) -> bool:
    """Whether a list of ids is that of a generation."""
    with open(path, encoding="utf-8", newline="\n") as lines:
        pairs = zip_longest((line.rstrip("\n") for line in lines), iterate_ids(generation))
        return all(one == other for one, other in pairs)


class Maker:
    """Encodes pictures on every device there is.

    Args:
        record: what to make.
        vae: folder of the VAE.
        workers: processes that decode pictures; None: the cores.
    """

    def __init__(self, record: LatentRecord, vae: Path, workers: int | None) -> None:
        self.record = record
        self.workers = len(os.sched_getaffinity(0)) if workers is None else workers
        self.encoders = [LatentEncoder(vae, device) for device in devices()]

    def latents(self, pictures: Pictures) -> Iterator[tuple[int, str, bytes]]:
        """Shard number, id and latent of every picture, in order."""
        loader = DataLoader(
            pictures,
            batch_size=BATCH[self.encoders[0].device.type],
            num_workers=self.workers,
            # A worker that outlived its parent would hold the parent's lock, for which the next run waits.
            worker_init_fn=end_with_parent if self.workers else None,
            pin_memory=self.encoders[0].device.type == "cuda",
        )
        waiting: deque[tuple[list[int], list[str], Future[list[bytes]]]] = deque()
        with ThreadPoolExecutor(len(self.encoders), "encode") as pool:
            for number, batch in enumerate(loader):
                encoder = self.encoders[number % len(self.encoders)]
                waiting.append((batch["shard"].tolist(), batch["id"], pool.submit(encoder, batch["pixels"])))
                if len(waiting) > 2 * len(self.encoders):
                    yield from first_of_batch(waiting)
            while waiting:
                yield from first_of_batch(waiting)


def write_generation(generation: Path, working: Path, maker: Maker) -> list[dict[str, Any]]:
    """Write the latents of a generation into ``working``, going on where an earlier run was stopped.

    Returns:
        The shards' index entries.
    """
    (working / FRAGMENTS).mkdir(parents=True, exist_ok=True)
    for path in working.glob(f"{ASIDE}*"):
        shutil.rmtree(path)
    shards = read_shards(generation)
    begun = working / IDS
    if begun.exists() and not same_ids(begun, generation):
        logger.warning("%s was begun with other samples: dropped and begun again", working)
        shutil.rmtree(working)
        (working / FRAGMENTS).mkdir(parents=True)
    with atomic_write(begun) as file:
        file.writelines(f"{entry_id}\n".encode() for entry_id in iterate_ids(generation))
    done = {number: entry for number in range(len(shards)) if (entry := finished(working, number)) is not None}
    if done:
        logger.info("%s: %d of %d shards were finished by an earlier run", generation.name, len(done), len(shards))
    pictures = Pictures(generation, shards, [n for n in range(len(shards)) if n not in done], maker.record)
    latents = Progress(len(pictures), "samples", generation.name).follow(maker.latents(pictures))
    for number, samples in groupby(latents, key=lambda made: made[0]):
        done[number] = write_shard(working, number, [(entry_id, latent) for _, entry_id, latent in samples])
    write_bytes(working / INDEX, index_bytes([done[number] for number in range(len(shards))]))
    return [done[number] for number in range(len(shards))]


def finished(working: Path, number: int) -> dict[str, Any] | None:
    """The index entry of a shard that an earlier run finished, if its file is there in full."""
    entry = read_json(working / FRAGMENTS / f"{number:05}.json")
    with suppress(FileNotFoundError):
        if entry and (working / entry["raw_data"]["basename"]).stat().st_size == entry["raw_data"]["bytes"]:
            return entry
    return None


def write_shard(working: Path, number: int, samples: list[tuple[str, bytes]]) -> dict[str, Any]:
    """Write a shard aside, bring it to the disk and to its name; its index entry makes it count."""
    name = f"shard.{number:05}.mds"
    with tempfile.TemporaryDirectory(dir=working, prefix=ASIDE) as aside:
        columns = {"id": "str", COLUMN: "bytes"}
        with MDSWriter(out=aside, columns=columns, hashes=[HASH], size_limit=None, progress_bar=False) as writer:
            for entry_id, latent in samples:
                writer.write({"id": entry_id, COLUMN: latent})
        (entry,) = json.loads((Path(aside) / INDEX).read_bytes())["shards"]
        written = Path(aside) / entry["raw_data"]["basename"]
        sync_path(written)
        os.replace(written, working / name)
    entry["raw_data"]["basename"] = name
    write_json(working / FRAGMENTS / f"{number:05}.json", entry)
    return entry
