"""Add world latents to generations that exist, in a data set of their own beside the images.

Several ranks share the shards that are missing. Rank 0 alone opens and publishes; the others write shards and tell it.

``OUT/world_latents/`` is an MDS data set with the columns ``id`` and ``world_latents``: for every generation of ``OUT``
one of the same name, for every shard one with as many samples in the same order. ``OUT`` itself does not change.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from composer.utils import dist
from streaming import MDSWriter
from torch.utils.data import DataLoader

from theworld import cli
from theworld.config.schema import MISSING, Config
from theworld.data.latents.latent_encoder import LatentEncoder
from theworld.data.latents.record import COLUMN, LatentRecord, resolve_record
from theworld.data.shards.convert import explain_os_error
from theworld.data.shards.dataset import IDS, MANIFEST, DataSet, iterate_ids, read_shards
from theworld.data.shards.lock import exclusive_lock
from theworld.data.shards.mds import HASH, INDEX, index_bytes
from theworld.data.shards.pictures import Pictures, first_of_batch
from theworld.errors import UserError
from theworld.files import atomic_write, read_json, sync_path, write_bytes, write_json
from theworld.killed_workers import killed_workers_as_one_line
from theworld.processes import end_with_lost_batch, end_with_parent
from theworld.progress import Progress
from theworld.rank_group import join_ranks, local_ranks, own_devices
from theworld.ranks import from_rank_zero, raise_together

RECORD = "record.json"
FRAGMENTS = ".fragments"
ASIDE = ".aside-"
BATCH = {"cuda": 16, "cpu": 2}
"""Pictures that are encoded together: a picture of 512 x 512 takes some 500 MB in float32."""

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
    join_ranks()
    maker = Maker(record, vae.folder, config.convert.workers)
    for root in roots:
        add_to(root, record, maker, added)
    added.seconds = time.monotonic() - started
    return added


def add_to(root: Path, record: LatentRecord, maker: Maker, added: Added) -> None:
    """Bring the latents of one data set up to date; all ranks call it."""
    store = DataSet(root / COLUMN)
    with ExitStack() as held:
        for generation in from_rank_zero(partial(open_store, root, store, record, held, added)):
            working = store.root / f".{generation.name}"
            todo = from_rank_zero(partial(begin_generation, generation, working))
            mine, fault = {}, None
            try:
                with killed_workers_as_one_line("convert.workers"):
                    mine = write_shards(generation, working, maker, todo[cli.rank() :: cli.world_size()])
            except UserError as error:
                fault = error
            except OSError as error:
                fault = UserError(explain_os_error(error, working))
            raise_together(fault)
            shares: list[dict[int, dict[str, Any]]] = dist.all_gather_object(mine)
            if cli.rank() == 0:
                done = {number: entry for share in shares for number, entry in share.items()}
                assert len(done) == sum(map(len, shares)), "a shard was written by two ranks"
                publish(generation, working, done, added)
                store.refresh({COLUMN: record.to_json()})


def open_store(root: Path, store: DataSet, record: LatentRecord, held: ExitStack, added: Added) -> list[Path]:
    """Take the store of a data set for this run: the generations that have no latents yet.

    Raises:
        UserError: another run holds it, or its latents are of another kind or of other samples.
    """
    if (read_json(root / MANIFEST) or {}).get(COLUMN):
        logger.info("%s: has its latents in its own shards", root)
        added.before += DataSet(root).samples()
        return []
    try:
        store.root.mkdir(exist_ok=True)
        held.enter_context(exclusive_lock(store.root / ".lock", str(store.root)))
        check_record(store.root, record)
        missing = []
        for generation in DataSet(root).generations():
            target = store.root / generation.name
            if (target / INDEX).is_file():
                check_ids(generation, target)
                added.before += sum(shard["samples"] for shard in read_shards(target))
            else:
                missing.append(generation)
        store.refresh({COLUMN: record.to_json()})
    except OSError as error:
        raise UserError(explain_os_error(error, store.root)) from error
    return missing


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
    """Encodes pictures on every device that this rank has.

    Args:
        record: what to make.
        vae: folder of the VAE.
        workers: processes that decode pictures; None: this rank's part of the cores.
    """

    def __init__(self, record: LatentRecord, vae: Path, workers: int | None) -> None:
        self.record = record
        self.workers = max(len(os.sched_getaffinity(0)) // local_ranks(), 1) if workers is None else workers
        self.encoders = [LatentEncoder(vae, device) for device in own_devices()]

    def latents(self, pictures: Pictures) -> Iterator[tuple[int, str, bytes]]:
        """Shard number, id and latent of every picture, in order."""
        loader = DataLoader(
            pictures,
            batch_sampler=pictures.batches(BATCH[self.encoders[0].device.type]),
            num_workers=self.workers,
            worker_init_fn=begin_worker if self.workers else None,
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


def begin_worker(_: int) -> None:
    """A worker that outlived its parent would hold the parent's lock, for which the next run waits; for a batch that it
    has lost the parent would wait itself."""
    end_with_parent()
    end_with_lost_batch()


def begin_generation(generation: Path, working: Path) -> list[int]:
    """Make ready to write a generation's latents: the numbers of the shards that no earlier run has finished."""
    try:
        (working / FRAGMENTS).mkdir(parents=True, exist_ok=True)
        for path in working.glob(f"{ASIDE}*"):
            shutil.rmtree(path)
        begun = working / IDS
        if begun.exists() and not same_ids(begun, generation):
            logger.warning("%s was begun with other samples: dropped and begun again", working)
            shutil.rmtree(working)
            (working / FRAGMENTS).mkdir(parents=True)
        with atomic_write(begun) as file:
            file.writelines(f"{entry_id}\n".encode() for entry_id in iterate_ids(generation))
    except OSError as error:
        raise UserError(explain_os_error(error, working)) from error
    count = len(read_shards(generation))
    todo = [number for number in range(count) if finished(working, number) is None]
    if len(todo) < count:
        logger.info("%s: %d of %d shards were finished by an earlier run", generation.name, count - len(todo), count)
    return todo


def write_shards(generation: Path, working: Path, maker: Maker, wanted: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Write this rank's share of a generation's latents: number to index entry."""
    pictures = Pictures(generation, read_shards(generation), wanted, maker.record)
    made = maker.latents(pictures)
    if cli.rank() == 0:
        name = generation.name if cli.world_size() == 1 else f"{generation.name}, this rank's share"
        made = Progress(len(pictures), "samples", name).follow(made)
    return {
        number: write_shard(working, number, [(entry_id, latent) for _, entry_id, latent in samples])
        for number, samples in groupby(made, key=lambda one: one[0])
    }


def publish(generation: Path, working: Path, done: dict[int, dict[str, Any]], added: Added) -> None:
    """Make a generation's latents count, once all of its shards are written.

    Args:
        generation: of the images.
        working: where its latents are.
        done: index entries of what the ranks have written in this run.
        added: takes its figures.
    """
    shards = [done.get(number) or finished(working, number) for number in range(len(read_shards(generation)))]
    assert None not in shards, "a shard that was finished is gone"
    entries = [entry for entry in shards if entry is not None]
    write_bytes(working / INDEX, index_bytes(entries))
    target = working.parent / generation.name
    os.replace(working, target)
    sync_path(target.parent)
    shutil.rmtree(target / FRAGMENTS)
    added.generations.append(f"{generation.parent.name}/{generation.name}")
    added.samples += sum(shard["samples"] for shard in entries)
    added.bytes += sum(shard["raw_data"]["bytes"] for shard in entries)


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
