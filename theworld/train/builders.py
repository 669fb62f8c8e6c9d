"""What Composer's trainer is made of, built from the YAML: model, evaluation, optimizer, schedule, loggers."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from composer import Evaluator

from theworld.config.data_places import places_of
from theworld.config.schema import Config
from theworld.data.cache.latent_store import latent_wish
from theworld.data.samples.augment import leaves_pixels
from theworld.model.build import load_model
from theworld.model.processing import TheWorldProcessor
from theworld.train.check_optimizer_groups import DECAY, GROUPS
from theworld.train.check_training import has_begun
from theworld.train.compilation import length_step
from theworld.train.composer_model import ComposerTheWorld
from theworld.train.data import TrainData, build_data
from theworld.train.host_memory import load_device, on_gpu
from theworld.train.memory import frozen_dtype, packed_in
from theworld.train.optimizer_groups import parameter_groups
from theworld.train.registry import (
    CALLBACKS,
    DEFAULT_OPTIMIZER,
    DEFAULT_SCHEDULER,
    LOGGERS,
    OPTIMIZERS,
    SCHEDULERS,
    check_settings,
    construct,
    construct_named,
    find_transform,
    lookup,
)

log = logging.getLogger(__name__)


def build_model(config: Config, processor: TheWorldProcessor, with_world_encoder: bool = True) -> ComposerTheWorld:
    """The model, with the VAE unless all data has latents, frozen parts in the precision that the YAML asks for.

    It is on the rank's GPU already, also where FSDP is to shard it: a node's memory never holds a copy for each rank.
    """
    model = load_model(
        config.model,
        seed=config.seed,
        with_world_encoder=with_world_encoder,
        frozen_dtype=frozen_dtype(config),
        device=load_device(config),
        packed_in=packed_in(config),
    )
    return ComposerTheWorld(model, processor)


def build_training(config: Config, processor: TheWorldProcessor, with_latents: bool = True) -> TrainData:
    """The data to train on, which may grow, changed by the user's transform.

    Raises:
        UserError: there is no data set; world latents are asked for that the run cannot use.
    """
    augment = find_transform(config)
    settings = config.train_loader
    pixels_change = augment is not None and not leaves_pixels(augment)
    wish = latent_wish(config.model, settings.dataset, pixels_change) if with_latents else None
    batch, step = config.global_train_batch_size, length_step(config)
    return build_data(settings, processor, batch, config.seed, True, wish, step, augment, on_gpu(config), known(config))


def known(config: Config) -> bool:
    """Whether an earlier start of the run has read its data."""
    return config.save_folder is not None and has_begun(Path(config.save_folder))


def build_evaluation(config: Config, processor: TheWorldProcessor, with_latents: bool = True) -> dict[str, TrainData]:
    """The held-out data sets by name, each read in the same order each time; the only one has no name."""
    if config.eval_loader is None:
        return {}
    settings = replace(config.eval_loader, dataset=replace(config.eval_loader.dataset, shuffle=False))
    wish = latent_wish(config.model, settings.dataset) if with_latents else None
    step = length_step(config)
    batch, pin_memory = config.global_train_batch_size, on_gpu(config)
    alone = {"": settings}
    if settings.datasets is not None:
        alone = {one.name: replace(settings, datasets=[one]) for one in settings.datasets}
    return {
        name: build_data(
            loader, processor, batch, config.seed, False, wish, step, pin_memory=pin_memory, known=known(config)
        )
        for name, loader in alone.items()
    }


def build_evaluator(config: Config, held_out: TrainData, series: str) -> Evaluator:
    """Composer's evaluator: loss and token accuracy over the answers, logged under the name of their series."""
    batches = math.ceil(held_out.dataset.snapshot.samples / config.global_train_batch_size)
    wanted = config.eval_subset_num_batches
    return Evaluator(
        label=series,
        dataloader=held_out.spec,
        # The loader has no length, and Composer would not start an evaluation without one.
        subset_num_batches=batches if wanted < 0 else min(wanted, batches),
        metric_names=["AnswerLoss", "AnswerAccuracy"],
        device_eval_microbatch_size=config.device_train_microbatch_size,
    )


def build_optimizer(config: Config, model: ComposerTheWorld) -> torch.optim.Optimizer:
    """The optimizer over what trains, and nothing else."""
    settings = dict(config.optimizer)
    name = str(settings.pop("name", DEFAULT_OPTIMIZER))
    build = lookup(OPTIMIZERS, "optimizer.name", name)
    if name == "adamw" and not (settings.get("foreach") or settings.get("differentiable")):
        # One kernel instead of a dozen, and no copies. A run that is resumed keeps what its checkpoint says.
        settings.setdefault("fused", True)
    members = parameter_groups(config.optimizer, model)
    for part, own in (settings.pop(GROUPS, None) or {}).items():
        check_settings(build, f"optimizer.{GROUPS}.{part}", own or {})  # torch would keep any, and use none
    settings.pop(DECAY, None)
    log.info(
        "%d parameters train, %d are frozen",
        sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad),
    )
    return construct(build, "optimizer", settings, params=members)


def build_scheduler(config: Config) -> Any:
    """The learning-rate schedule."""
    settings = dict(config.scheduler)
    build = lookup(SCHEDULERS, "scheduler.name", str(settings.pop("name", DEFAULT_SCHEDULER)))
    return construct(build, "scheduler", settings)


def build_callbacks(config: Config) -> list[Any]:
    """The callbacks that the YAML names."""
    named = dict(config.callbacks)
    if named.get("generation_eval") is not None:
        settings = {"draw_boxes": config.train_loader.dataset.draw_bboxes, **named["generation_eval"]}
        if settings.get("bench", "holdout") == "holdout" and config.eval_loader is not None:
            places = places_of(config.eval_loader)
            alone = places[0].origin if not places[0].name else {place.name: place.origin for place in places}
            settings.setdefault("data", alone)
            settings.setdefault("world_off", [place.name for place in places if not place.world])
        named["generation_eval"] = settings
    return construct_named(CALLBACKS, "callbacks", named)


def build_loggers(config: Config, save_folder: Path) -> list[Any]:
    """Composer's loggers."""
    return construct_named(LOGGERS, "loggers", logger_settings(config, save_folder))


def logger_settings(config: Config, save_folder: Path) -> dict[str, Any]:
    """The loggers' settings, so that a run that is started again goes on in the same TensorBoard folder, W&B run and
    MLflow run; what the YAML sets itself stands."""
    named = dict(config.loggers)
    # Both know a run by its id: one that follows from where the run is saved is the same at each start.
    same_run = hashlib.sha256(f"{config.run_name} {save_folder.absolute()}".encode()).hexdigest()[:16]
    if named.get("tensorboard") is not None:
        named["tensorboard"] = {"log_dir": str(save_folder / "tensorboard"), **named["tensorboard"]}
    if named.get("wandb") is not None:
        settings = dict(named["wandb"])
        settings["init_kwargs"] = {"id": same_run, "resume": "allow", **(settings.get("init_kwargs") or {})}
        named["wandb"] = {"name": config.run_name, **settings}
    if named.get("mlflow") is not None:
        named["mlflow"] = {"run_name": config.run_name, "resume": True, **mlflow_store(save_folder), **named["mlflow"]}
        # Composer looks for the run to go on with by the tag run_name, which it takes from here or from the Trainer's
        # name, and that is the same for every save_folder of one YAML.
        os.environ.setdefault("RUN_NAME", f"{config.run_name}-{same_run}")
    return named


def mlflow_store(save_folder: Path) -> dict[str, str]:
    """Where MLflow keeps the run if neither the YAML nor the environment says: beside TensorBoard's files, not in the
    folder that the command happens to be called from."""
    if {"MLFLOW_TRACKING_URI", "DATABRICKS_TOKEN"} & set(os.environ):
        return {}
    return {"tracking_uri": f"sqlite:///{save_folder.absolute() / 'mlflow.db'}"}
