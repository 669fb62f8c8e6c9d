"""The machine and what is around it: versions, disks, shared memory, a GPU's memory, the Hub."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement

from theworld.config.schema import Config
from theworld.data.cache.snapshot import read_snapshot
from theworld.data.cache.space import SMALLEST_IN_SHARDS
from theworld.files import nearest_folder
from theworld.hub.access import check_write_access
from theworld.monitor.status_table import size
from theworld.preflight.data_checks import source_of
from theworld.preflight.verdicts import FAIL, OK, UNKNOWN, WARN, Verdict
from theworld.train.fit_memory import fit_memory, needs
from theworld.train.memory import GIB, STATES_PER_WEIGHT, MemoryOfRun
from theworld.train.room_for_batches import SHARED

PIXEL_BYTES = 3
"""Of a pixel as uint8."""


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


def check_temporary(config: Config) -> Verdict:
    """Room for the cache of shards on this node's disk."""
    dataset = config.train_loader.dataset
    if dataset.remote is None:
        return Verdict("cache", OK, "shards are read in place")
    folder = nearest_folder(Path(dataset.local or os.environ.get("TMPDIR") or tempfile.gettempdir()))
    sizes = sorted(read_snapshot(source_of(config)).shard_bytes, reverse=True)
    free, least, whole = shutil.disk_usage(folder).free, sum(sizes[:SMALLEST_IN_SHARDS]), sum(sizes)
    figures = {"folder": str(folder), "free_bytes": free, "least_bytes": least, "whole_bytes": whole}
    text = f"{folder}: {size(free)} are free, the data set has {size(whole)}"
    if free < least:
        return Verdict("cache", FAIL, f"{text}; set TMPDIR or train_loader.dataset.local to a larger disk", figures)
    if not os.environ.get("TMPDIR") and dataset.local is None:
        return Verdict("cache", WARN, f"{text}; TMPDIR is not set", figures)
    if free < whole:
        return Verdict("cache", WARN, f"{text}, so that shards are fetched again and again", figures)
    return Verdict("cache", OK, text, figures)


def check_shared_memory(config: Config, image_side: int, ranks: int, ranks_of_node: int) -> Verdict:
    """Room in /dev/shm for the batches that the loader's workers keep ready.

    Args:
        config: of the run.
        image_side: pixels of the language model's picture.
        ranks: processes that train together.
        ranks_of_node: those on this node.
    """
    loader = config.train_loader
    if not loader.num_workers or not SHARED.is_dir():
        return Verdict("shared memory", OK, "not needed: train_loader.num_workers is 0")
    sides = image_side**2 + (config.model.world_image_size**2 if config.model.enable_world else 0)
    batches = ranks_of_node * loader.num_workers * loader.prefetch_factor
    needed = batches * -(-config.global_train_batch_size // ranks) * sides * PIXEL_BYTES
    free = shutil.disk_usage(SHARED).free
    text = f"{SHARED}: {size(free)} are free, batches ahead take at most {size(needed)}"
    figures = {"free_bytes": free, "needed_bytes": needed}
    if needed > free:
        return Verdict("shared memory", FAIL, f"{text}; lower train_loader.num_workers or prefetch_factor", figures)
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
