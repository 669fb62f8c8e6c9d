"""A run in stages: one after the other, each from the last one's weights, through any number of stops."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from composer.utils import dist, get_device

from theworld.checkpoint.on_disk import list_checkpoints, newest_whole_checkpoint
from theworld.config.schema import Config
from theworld.config.stage_configs import stage_configs
from theworld.errors import EXIT_DONE, EXIT_REQUEUE, UserError
from theworld.ranks import from_rank_zero
from theworld.signals import StopRequest
from theworld.stage_folders import FILE, Stage, read_stages, write_stages
from theworld.train.callbacks.preemption import any_rank_wants_to_stop
from theworld.train.check_training import has_begun
from theworld.train.run import train
from theworld.train.stages_from_hub import bring_back, local_name, look_patiently, stages_on_hub, tell_hub

log = logging.getLogger(__name__)

TRACKED_AS = "RUN_NAME"
"""Composer's environment variable, which the trainer sets for MLflow: each stage is a run of its own."""


def train_run(config: Config, stop: StopRequest) -> int:
    """Train a run, in stages or not.

    Returns:
        The exit code, as :func:`~theworld.train.run.train` has it.

    Raises:
        UserError: something in the configuration or the save folder cannot work.
    """
    if config.stages:
        return train_stages(config, stop)
    if (Path(str(config.save_folder)) / FILE).exists():
        raise UserError(
            f"save_folder: {config.save_folder} holds a run in stages; set another save_folder, or its stages"
        )
    return train(config, stop)


def train_stages(config: Config, stop: StopRequest) -> int:
    """Train the stages that are not finished, in order.

    Args:
        config: with ``stages``.
        stop: ends the run early, in whatever stage it is, with a checkpoint.

    Returns:
        The exit code of the stage that did not come to its end, or 0.

    Raises:
        UserError: something in the configuration or the save folder cannot work.
    """
    assert config.save_folder is not None
    folder, runs = Path(config.save_folder), stage_configs(config)
    dist.initialize_dist(get_device(config.device), timeout=config.dist_timeout)
    # Rank 0 reads for all: a rank with an older view of the folder would begin another stage than the others.
    stages = from_rank_zero(lambda: known_stages(folder, runs))
    tracked = os.environ.get(TRACKED_AS)
    for number, (name, of_stage) in enumerate(runs):
        if stages[number].checkpoint is not None:
            log.info("stage %s is finished: %s after %s batches", name, stages[number].checkpoint, stages[number].batch)
            continue
        if any_rank_wants_to_stop(stop):
            log.info("stopped before stage %s: %s", name, stop.reason or "another rank's wish")
            return EXIT_REQUEUE
        log.info("stage %s, %d of %d", name, number + 1, len(runs))
        if number > 0:
            last, before = runs[number - 1][1], stages[number - 1]
            path = from_rank_zero(partial(weights_to_begin_with, of_stage, last, before))
            of_stage.load_path, of_stage.load_weights_only = path, path is not None
        code = train(of_stage, stop)
        if code != EXIT_DONE:
            return code
        stages = from_rank_zero(lambda done=number, before=stages: note_finished(folder, before, done))
        from_rank_zero(lambda one=of_stage, done=stages[number]: tell_hub(one, done))
        forget(tracked)
    return EXIT_DONE


def known_stages(folder: Path, runs: Sequence[tuple[str, Config]]) -> list[Stage]:
    """The stages of the YAML with what is known of each, here or, where nothing is, on the Hub; rank 0 calls it.

    Raises:
        UserError: the folder is of a run without stages, or its stages were others.
        NotNow: the Hub is out of reach.
    """
    if has_begun(folder):
        raise UserError(f"save_folder: {folder} holds a run without stages; set another save_folder")
    names = [name for name, _ in runs]
    before = read_stages(folder)
    if not before:
        found = stages_on_hub(runs)
        write_stages(folder, found)
        return found
    for number, one in enumerate(before):
        begun = one.checkpoint is not None or has_begun(folder / one.name)
        if begun and names[number : number + 1] != [one.name]:
            raise UserError(
                f"stages: {one.name} was stage {number + 1} of {folder} and has begun; leave it where it was (more may "
                "follow), or set another save_folder"
            )
    kept = {one.name: one for one in before}
    stages = [kept.get(name, Stage(name)) for name in names]
    if stages != before:
        write_stages(folder, stages)
    return stages


def weights_to_begin_with(config: Config, last: Config, before: Stage) -> str | None:
    """The checkpoint of the stage before, whose weights a stage begins with; None if it has checkpoints of its own.

    Rank 0 calls it for all.

    Args:
        config: of the stage that begins.
        last: of the stage before.
        before: how that one has ended.

    Raises:
        UserError: that one's checkpoint is gone, here and on the Hub.
        NotNow: the Hub is out of reach.
    """
    assert before.checkpoint is not None
    path = Path(str(last.save_folder)) / before.checkpoint
    if path.exists():
        return str(path)
    if list_checkpoints(Path(str(config.save_folder))) or look_patiently(config) is not None:
        return None
    found, repo = look_patiently(last), last.hub.repo_id
    if found is None or repo is None or local_name(found.checkpoint, last) != before.checkpoint:
        holds = f", and {repo} holds {found.checkpoint if found else 'none'}" if repo else ""
        name = Path(str(config.save_folder)).name
        raise UserError(f"{path}: is gone{holds}, and stage {name} is to begin with its weights")
    bring_back(last, repo, path.parent)
    return str(path)


def note_finished(folder: Path, stages: list[Stage], number: int) -> list[Stage]:
    """Write down that a stage is finished, so that no later start trains it again, whatever has come to its data."""
    last = newest_whole_checkpoint(folder / stages[number].name)
    if last is None:
        raise UserError(f"{folder / stages[number].name}: no whole checkpoint in it, though the stage is finished")
    done = replace(stages[number], checkpoint=last.path.name, batch=last.batch)
    stages = [*stages[:number], done, *stages[number + 1 :]]
    write_stages(folder, stages)
    return stages


def forget(tracked: str | None) -> None:
    """Give back what a stage has held: the next one's model needs the memory."""
    if tracked is None:
        os.environ.pop(TRACKED_AS, None)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
