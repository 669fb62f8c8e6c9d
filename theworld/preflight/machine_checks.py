"""The machine and what is around it: versions, disks, shared memory, a GPU's memory, the Hub."""

from __future__ import annotations

import os
import shutil
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement

from theworld.config.schema import Config
from theworld.config.sizes import parse_bytes
from theworld.data.cache.shard_cache import default_cache_folder, make_cache_folder
from theworld.data.cache.space import check_capacity
from theworld.files import nearest_folder
from theworld.hub.access import check_write_access
from theworld.monitor.status_table import size
from theworld.preflight.data_checks import DataSets
from theworld.preflight.verdicts import FAIL, OK, UNKNOWN, WARN, Verdict
from theworld.train.fit_memory import fit_memory, needs
from theworld.train.memory import GIB, STATES_PER_WEIGHT, MemoryOfRun
from theworld.train.room_for_batches import REMEDY, SHARED, bytes_kept_ready


def check_versions() -> Verdict:
    """Every package that this one needs, in a version that it was tried with."""
    wrong = []
    for line in metadata.requires("theworld") or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            there = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(there, prereleases=True):
            wrong.append(f"{wanted.name} {there}, wanted {wanted.specifier}")
    if wrong:
        remedy = "pip install -c constraints.txt -e ."
        return Verdict("versions", WARN, f"{'; '.join(wrong)}: {remedy}", {"wrong": wrong})
    return Verdict("versions", OK, f"as pinned; torch {torch.__version__}")


def check_cache(config: Config) -> Verdict:
    """Room for the cache of shards on this node's disk; its folder is made, as the run would."""
    dataset = config.train_loader.dataset
    data_sets = DataSets.read(config)
    remotes = [place.remote for place in data_sets.places if place.remote is not None]
    if not remotes:
        return Verdict("cache", OK, "shards are read in place")
    folder = Path(dataset.local) if dataset.local else default_cache_folder(*remotes)
    make_cache_folder(folder, shared=dataset.local is not None)
    given = dataset.cache_limit
    limit = None if given is None else parse_bytes("train_loader.dataset.cache_limit", given)
    pairs = zip(data_sets.places, data_sets.snapshots, strict=True)
    sizes = [size for place, snapshot in pairs if place.remote is not None for size in snapshot.shard_bytes]
    room, whole = check_capacity(folder, limit, sizes), sum(sizes)
    figures = {"folder": str(folder), "room_bytes": room, "whole_bytes": whole}
    text = f"{folder}: room for {size(room)}, the data set has {size(whole)}"
    if not os.environ.get("TMPDIR") and dataset.local is None:
        return Verdict("cache", WARN, f"{text}; TMPDIR is not set", figures)
    if room < whole:
        return Verdict("cache", WARN, f"{text}, so that shards are fetched again and again", figures)
    return Verdict("cache", OK, text, figures)


def check_shared_memory(config: Config, picture_bytes: int, ranks: int, ranks_of_node: int) -> Verdict:
    """Room in /dev/shm for the batches that the loaders' workers keep ready.

    Args:
        config: of the run.
        picture_bytes: of a sample.
        ranks: processes that train together.
        ranks_of_node: those on this node.
    """
    loaders = [loader for loader in (config.train_loader, config.eval_loader) if loader is not None]
    batch = -(-config.global_train_batch_size // ranks)
    needed = ranks_of_node * sum(
        bytes_kept_ready(loader.num_workers, loader.prefetch_factor, batch, picture_bytes) for loader in loaders
    )
    if not needed or not SHARED.is_dir():
        return Verdict("shared memory", OK, "not needed: train_loader.num_workers is 0")
    free = shutil.disk_usage(SHARED).free
    text = f"{SHARED}: {size(free)} are free, batches ahead take at most {size(needed)}"
    figures = {"free_bytes": free, "needed_bytes": needed}
    if needed > free:
        return Verdict("shared memory", FAIL, f"{text}; {REMEDY}", figures)
    return Verdict("shared memory", OK, text, figures)


def check_checkpoints(config: Config, memory: MemoryOfRun) -> Verdict:
    """Room for the checkpoints that are kept, and one more while it is written."""
    trained = sum(weight.numel() * 4 for weight in memory.model.parameters() if weight.requires_grad)
    one = trained * (1 + STATES_PER_WEIGHT.get(str(config.optimizer.get("name")), 2))
    kept = config.save_num_checkpoints_to_keep
    folder = nearest_folder(Path(str(config.save_folder)))
    free = shutil.disk_usage(folder).free
    figures = {"checkpoint_bytes": one, "free_bytes": free, "kept": kept}
    text = f"{folder}: {size(free)} are free, a checkpoint takes {size(one)}"
    if not os.access(folder, os.W_OK):
        return Verdict("checkpoints", FAIL, f"save_folder: {folder} cannot be written", figures)
    if kept == -1:
        return Verdict("checkpoints", OK if free > 2 * one else FAIL, f"{text}, and all are kept", figures)
    if free < one * (kept + 1):
        return Verdict("checkpoints", FAIL, f"{text}, and {kept + 1} of them must fit", figures)
    return Verdict("checkpoints", OK, f"{text}, {kept} are kept", figures)


def check_memory(config: Config, memory: MemoryOfRun, ranks: int, gpu: int | None) -> Verdict:
    """Whether the run fits its GPUs.

    Args:
        config: of the run; ``activation_checkpointing: null`` is decided in it, as in training.
        memory: of its model.
        ranks: GPUs that train together.
        gpu: bytes of the smallest; None: not known.
    """
    longest = config.train_loader.dataset.max_seq_len
    if gpu is None:
        estimate = memory.estimate(config, ranks, longest)
        text = f"about {estimate.total / GIB:.1f} GiB a GPU ({estimate}); no GPU here: give its size with --gpu"
        return Verdict("GPU memory", UNKNOWN, text, {"bytes": estimate.total})
    fit_memory(config, memory, ranks, gpu)
    estimate = memory.estimate(config, ranks, longest)
    figures = {"bytes": estimate.total, "gpu_bytes": gpu, "recomputes": bool(config.model.activation_checkpointing)}
    return Verdict("GPU memory", WARN if estimate.total > gpu else OK, needs(estimate, gpu), figures)


def check_hub_rights(config: Config) -> Verdict:
    """Whether the token may write to the repo, which is made if it is not there, as the run would."""
    repo = config.hub.repo_id
    if repo is None:
        return Verdict("Hub", OK, "hub.repo_id is not set: checkpoints stay here")
    if not check_write_access(repo, config.hub.private):
        return Verdict("Hub", UNKNOWN, "the Hub is out of reach now; uploads would be tried again at each save")
    return Verdict("Hub", OK, f"{repo} can be written")
