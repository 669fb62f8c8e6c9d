"""Impossible values and pairs, found before anything heavy is imported or loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from theworld.config.hub_url import REPO, SCHEME, Place
from theworld.config.schema import Config, LoaderConfig
from theworld.errors import UserError
from theworld.files import nearest_folder
from theworld.train.check_optimizer_groups import check_optimizer_groups
from theworld.train.check_sources import check_sources
from theworld.train.check_values import (
    CONSOLE,
    check_known,
    check_optimizer,
    check_sections,
    check_signals,
    check_time,
)

WORLDS = ("own", "shuffled")
BENCHES = ("holdout", "spatialrgpt")
"""Questions of callbacks.generation_eval."""
PRECISIONS = ("fp32", "amp_bf16", "amp_fp16")
FSDP_KEYS = ("fsdp", "tp")


def check_positive(values: Mapping[str, float | None], smallest: float = 1) -> None:
    for key, value in values.items():
        if value is not None and not value >= smallest:
            raise UserError(f"{key}: {value} is too small; the least is {smallest}")


def check_training(config: Config, ranks: int, has_gpu: bool | None = None) -> None:
    """What the trainer needs.

    Args:
        config: the configuration.
        ranks: processes that train together.
        has_gpu: whether there is one; None if not known yet.

    Raises:
        UserError: names the first key that cannot work.
    """
    check_positive(
        {
            "global_train_batch_size": config.global_train_batch_size,
            "train_loader.prefetch_factor": config.train_loader.prefetch_factor,
            "train_loader.dataset.max_seq_len": config.train_loader.dataset.max_seq_len,
            "train_loader.dataset.shuffle_block_size": config.train_loader.dataset.shuffle_block_size,
        }
    )
    if config.train_loader.dataset.num_canonical_nodes is not None:
        check_positive({"train_loader.dataset.num_canonical_nodes": config.train_loader.dataset.num_canonical_nodes})
    check_expected(config.train_loader)
    check_positive({"train_loader.num_workers": config.train_loader.num_workers, "seed": config.seed}, smallest=0)
    check_positive({"save_num_checkpoints_to_keep": config.save_num_checkpoints_to_keep}, smallest=-1)
    if config.save_num_checkpoints_to_keep == 0:
        raise UserError("save_num_checkpoints_to_keep: 0 would delete every checkpoint; use 1 or more, or -1 for all")
    check_time("max_duration", config.max_duration)
    check_time("save_interval", config.save_interval)
    check_time("log_interval", config.log_interval, CONSOLE)
    check_time("eval_interval", config.eval_interval)
    check_positive({"most_lost_steps": config.most_lost_steps})
    check_known("optimizer.name", config.optimizer.get("name", "decoupled_adamw"))
    check_known("scheduler.name", config.scheduler.get("name", "cosine_with_warmup"))
    check_sections({"algorithms": config.algorithms, "callbacks": config.callbacks, "loggers": config.loggers})
    check_optimizer(config.optimizer)
    check_optimizer_groups(config)
    check_generation_eval(config)
    check_average(config, ranks)
    check_profiler(config)
    check_signals(config.preemption.signals)
    check_watchdog(config)
    check_batch(config, ranks)
    check_precision(config, has_gpu)
    known = config.save_folder is not None and has_begun(Path(config.save_folder))
    for section, loader in (("train_loader", config.train_loader), ("eval_loader", config.eval_loader)):
        if loader is not None:
            check_data(section, loader, known)
            check_world(section, loader)
            check_patience(section, loader, config.dist_timeout)
    check_saving(config)
    for key in config.parallelism_config or {}:
        if key not in FSDP_KEYS:
            raise UserError(f"parallelism_config.{key}: unknown; Composer reads {' and '.join(FSDP_KEYS)}")


def check_generation_eval(config: Config) -> None:
    """Generated answers while training (``callbacks.generation_eval``)."""
    settings = config.callbacks.get("generation_eval")
    if settings is None:
        return
    key = "callbacks.generation_eval"
    if (config.parallelism_config or {}).get("fsdp") is not None:
        raise UserError(
            f"{key}: not with parallelism_config.fsdp: each rank answers questions of its own, and a sharded model can "
            "only be asked by all ranks at once; use recipes/evaluate.py on a checkpoint"
        )
    check_time(f"{key}.interval", settings.get("interval", "1ep"))
    bench = settings.get("bench", BENCHES[0])
    if bench not in BENCHES:
        raise UserError(f"{key}.bench: {bench!r} is not known; known are {', '.join(BENCHES)}")
    for name, least in (("limit", 1), ("batch_size", 1), ("max_new_tokens", 1), ("pictures", 0)):
        if name in settings and not (type(settings[name]) is int and settings[name] >= least):
            raise UserError(f"{key}.{name}: {settings[name]!r}: expected a whole number, {least} or more")


def check_profiler(config: Config) -> None:
    """The profiler's batches."""
    wanted = config.profiler
    if wanted is None:
        return
    for key, least in (("skip_first", 0), ("wait", 0), ("warmup", 0), ("active", 1), ("repeat", 0)):
        check_positive({f"profiler.{key}": getattr(wanted, key)}, smallest=least)
    if config.device_train_microbatch_size == "auto":
        raise UserError("device_train_microbatch_size: auto does not work with the profiler; give a number")


def check_average(config: Config, ranks: int) -> None:
    """A moving average of the weights (``algorithms.ema``, ``algorithms.swa``)."""
    if config.algorithms.get("swa") is not None and ranks > 1:
        raise UserError(
            "algorithms.swa: on one GPU only: Composer cannot resume it on several; use ema, or average checkpoints "
            "afterwards with recipes/average.py"
        )
    if config.algorithms.get("swa") is not None and config.model.load_in_4bit:
        raise UserError(
            "algorithms.swa: not with model.load_in_4bit: Composer would average the weights in 4 bits as well, as "
            "numbers that they are not; use ema, or average checkpoints afterwards with recipes/average.py"
        )
    if config.algorithms.get("ema") is not None and (config.parallelism_config or {}).get("fsdp") is not None:
        raise UserError(
            "algorithms.ema: not with parallelism_config.fsdp: Composer keeps the average whole and the weights in "
            "shards; leave one of them out, or average checkpoints afterwards with recipes/average.py"
        )


def check_watchdog(config: Config) -> None:
    """The limits of a run that stands still."""
    limits = config.watchdog
    if limits is None:
        return
    check_positive({"watchdog.warn": limits.warn})
    if not limits.abort > limits.warn:
        raise UserError(
            f"watchdog.abort: {limits.abort:.0f} s, but the first warning comes after {limits.warn:.0f} s "
            "(watchdog.warn); set more, or watchdog=null for neither"
        )


def check_expected(loader: LoaderConfig) -> None:
    """What a pass is to have, and the times to wait for it."""
    expected = loader.expected_samples
    if isinstance(expected, str) and expected != "auto":
        raise UserError(f"train_loader.expected_samples: {expected!r} is neither a number nor auto")
    if isinstance(expected, int):
        check_positive({"train_loader.expected_samples": expected})
    check_positive({"train_loader.wait": loader.wait, "train_loader.give_up": loader.give_up}, smallest=0)


def check_batch(config: Config, ranks: int) -> None:
    """Batch sizes against each other and the ranks."""
    batch, micro = config.global_train_batch_size, config.device_train_microbatch_size
    if batch % ranks:
        raise UserError(
            f"global_train_batch_size: {batch} does not divide by {ranks} ranks; "
            f"use {batch // ranks * ranks or ranks} or {(batch // ranks + 1) * ranks}"
        )
    if config.train_loader.world == "shuffled" and batch // ranks < 2:
        raise UserError(
            f"train_loader.world: shuffled needs 2 samples of each rank's batch; global_train_batch_size is {batch}, "
            f"for {ranks} ranks"
        )
    if isinstance(micro, str) and micro != "auto":
        raise UserError(f"device_train_microbatch_size: {micro!r} is neither a number nor auto")
    if isinstance(micro, int) and micro < 1:
        raise UserError(f"device_train_microbatch_size: {micro} is too small; the least is 1")


def check_precision(config: Config, has_gpu: bool | None) -> None:
    """Precision and device."""
    if config.precision not in PRECISIONS:
        raise UserError(f"precision: {config.precision!r} is not known; known are {', '.join(PRECISIONS)}")
    if config.device not in (None, "gpu", "cpu"):
        raise UserError(f"device: {config.device!r} is neither gpu nor cpu")
    if config.device == "gpu" and has_gpu is False:
        raise UserError("device: gpu asked for, but torch sees none; check CUDA_VISIBLE_DEVICES and the job's --gres")
    if config.device == "cpu" or has_gpu is False:
        if config.precision != "fp32":
            raise UserError(f"precision: {config.precision} needs a GPU; use precision=fp32 on a CPU")
        if config.device_train_microbatch_size == "auto":
            raise UserError("device_train_microbatch_size: auto needs a GPU; give a number on a CPU")
        if config.model.attn_implementation == "flex_attention":
            raise UserError("model.attn_implementation: flex_attention needs a GPU; use sdpa or eager on a CPU")


def has_begun(save_folder: Path) -> bool:
    """Whether a run has been started there before, so that what it reads was there."""
    return (save_folder / "launches.jsonl").exists()


def check_patience(section: str, loader: LoaderConfig, dist_timeout: float) -> None:
    """How long a rank tries again, while the others wait for it."""
    patience = loader.dataset.patience
    check_positive({f"{section}.dataset.patience": patience}, smallest=0)
    if patience >= dist_timeout:
        raise UserError(
            f"{section}.dataset.patience: {patience:.0f} s, but ranks wait for each other for {dist_timeout:.0f} s "
            "only; set less, or a longer dist_timeout"
        )


def check_data(section: str, loader: LoaderConfig, known: bool = False) -> None:
    """Where a data set is read from; one that the run has read before may be out of reach now."""
    dataset = loader.dataset
    if loader.datasets is not None:
        check_sources(section, loader, known)
        return
    if dataset.remote is None and dataset.local is None:
        raise UserError(f"{section}.dataset: set remote (where convert/to_mds.py wrote) or local, or both")
    origin = dataset.remote or dataset.local or ""
    if not known and "://" not in origin and not Path(origin).is_dir():
        key = "remote" if dataset.remote else "local"
        raise UserError(f"{section}.dataset.{key}: no folder {origin}; run convert/to_mds.py first")
    if dataset.remote is None and dataset.cache_limit is not None:
        raise UserError(
            f"{section}.dataset.cache_limit: deletes the only copy, since remote is null; set remote or no limit"
        )
    if dataset.remote and dataset.local and Path(dataset.remote).absolute() == Path(dataset.local).absolute():
        raise UserError(f"{section}.dataset.local: is the same folder as remote; leave local out, or remote")


def check_world(section: str, loader: LoaderConfig) -> None:
    """Whose world a sample gets."""
    if loader.world not in WORLDS:
        raise UserError(f"{section}.world: {loader.world!r} is neither {' nor '.join(WORLDS)}")


def check_saving(config: Config) -> None:
    """Where checkpoints go to and come from."""
    if config.save_folder is None:
        raise UserError("save_folder: not set; checkpoints and the ledger need a folder")
    if Path(config.save_folder).is_file():
        raise UserError(f"save_folder: {config.save_folder} is a file")
    there = nearest_folder(Path(config.save_folder))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "this user may not write there, or it is mounted read-only" if there.is_dir() else "it is a file"
        raise UserError(f"save_folder: {config.save_folder} cannot be written: {there}: {what}; set another one")
    if config.hub.repo_id is not None and not REPO.fullmatch(config.hub.repo_id):
        raise UserError(f"hub.repo_id: {config.hub.repo_id!r}: expected OWNER/NAME, without hf:// or a URL")
    check_positive({"hub.every": config.hub.every})
    check_positive({"hub.wait": config.hub.wait}, smallest=0)
    if config.load_weights_only and config.load_path is None:
        raise UserError("load_weights_only: needs load_path, the checkpoint whose weights to take")
    if config.load_path and config.load_path.startswith(SCHEME):
        Place.from_url("load_path", config.load_path)
    elif config.load_path and "://" not in config.load_path and not Path(config.load_path).exists():
        raise UserError(f"load_path: no such checkpoint: {config.load_path}")
