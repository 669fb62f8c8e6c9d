"""A training run, from the configuration to the last checkpoint."""

from __future__ import annotations

import hashlib
import logging
import math
import re
import sys
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from composer import Evaluator, Trainer
from composer.utils import dist, get_device
from omegaconf import OmegaConf

from theworld import cli
from theworld.config.check import check_training
from theworld.config.schema import Config
from theworld.data.latents.store import latent_wish
from theworld.errors import EXIT_REQUEUE, UserError
from theworld.model.build import load_model, load_processor
from theworld.model.processing import TheWorldProcessor
from theworld.train.checkpoint_files import Checkpoint, list_checkpoints, newest_whole_checkpoint
from theworld.train.checkpoints import WholeCheckpointSaver
from theworld.train.composer_model import ComposerTheWorld
from theworld.train.data import TrainData, build_data
from theworld.train.data_report import DataReport
from theworld.train.failures import last_step, note_reason
from theworld.train.ledger import Ledger, start_launch
from theworld.train.metrics import PaddingShare
from theworld.train.parallelism import prepare_parallelism
from theworld.train.pass_length import PassLength, announce
from theworld.train.preemption import Preemption, StoppedInEvaluation, any_rank_wants_to_stop
from theworld.train.randomness import RandomState
from theworld.train.registry import (
    ALGORITHMS,
    CALLBACKS,
    LOGGERS,
    OPTIMIZERS,
    SCHEDULERS,
    construct,
    construct_named,
    lookup,
)
from theworld.train.signals import StopRequest
from theworld.train.weights import Weights, holds_vae, pin_bases, read_saved_weights

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SECRET = re.compile(r"token|secret|password|api_?key|credential", re.IGNORECASE)


def train(config: Config, stop: StopRequest | None = None) -> int:
    """Train until ``max_duration``, resuming what was begun in ``save_folder``.

    Args:
        config: the run.
        stop: ends the run early, with a checkpoint, when it is wanted.

    Returns:
        The exit code: 0, or 85 if the run was stopped before its end.

    Raises:
        UserError: something in the configuration or the data set cannot work.
    """
    check_training(config, cli.world_size(), torch.cuda.is_available())
    prepare_parallelism(config)
    stop = stop or StopRequest(config.preemption.signals)
    stop.read_job_end(config.preemption.grace)
    dist.initialize_dist(get_device(config.device), timeout=config.dist_timeout)
    assert config.save_folder is not None
    save_folder = Path(config.save_folder)
    resume = find_resume(config, save_folder)
    start = str(resume.path) if resume else config.load_path
    saved = read_saved_weights(start) if start else None
    if saved is not None:
        pin_bases(config.model, saved)
    processor = load_processor(config.model)
    wish = None if holds_vae(saved) else latent_wish(config.model, config.train_loader.dataset)
    data = build_data(config.train_loader, processor, config.global_train_batch_size, config.seed, True, wish)
    held_out = build_evaluation(config, processor, with_latents=not holds_vae(saved))
    try:
        announce(data.dataset, config.train_loader.expected_samples)
        needs_vae = any(one is not None and one.dataset.latents is None for one in (data, held_out))
        model = build_model(config, processor, with_world_encoder=needs_vae)
        weights = Weights(model)
        if saved is not None:
            weights.take_from(saved, new_stage=resume is None and config.load_weights_only)
        done_before = last_step(save_folder)[1]
        launch = start_launch(save_folder, launch_facts(config, data, resume))
        if resume:
            log_resume(resume, done_before, launch)
        write_config(config, save_folder)
        return fit(config, save_folder, model, weights, data, held_out, resume, launch, stop)
    finally:
        data.close()
        if held_out is not None:
            held_out.close()


def fit(
    config: Config,
    save_folder: Path,
    model: ComposerTheWorld,
    weights: Weights,
    data: TrainData,
    held_out: TrainData | None,
    resume: Checkpoint | None,
    launch: int,
    stop: StopRequest,
) -> int:
    """Build Composer's trainer and run it."""
    preemption = Preemption(stop)
    length = PassLength(data.dataset, config.train_loader.expected_samples)
    ledger = Ledger(save_folder, launch, data.dataset)
    saver = WholeCheckpointSaver(
        save_folder,
        config.save_interval,
        config.save_num_checkpoints_to_keep,
        before_save=ledger.sync,
        select=weights.drop_frozen,
    )
    progress_bar = sys.stderr.isatty() if config.progress_bar is None else config.progress_bar
    trainer = Trainer(
        model=model,
        train_dataloader=data.spec,
        train_subset_num_batches=length.batches,
        eval_dataloader=build_evaluator(config, held_out),
        eval_interval=config.eval_interval if held_out else 1,
        max_duration=config.max_duration,
        optimizers=build_optimizer(config, model),
        schedulers=build_scheduler(config),
        algorithms=construct_named(ALGORITHMS, "algorithms", config.algorithms),
        # The ledger's line must stand before the checkpoint that contains its batch.
        callbacks=[
            *construct_named(CALLBACKS, "callbacks", config.callbacks),
            preemption,
            length,
            DataReport(),
            ledger,
            PaddingShare(),
            saver,
        ],
        loggers=build_loggers(config, save_folder),
        run_name=config.run_name,
        progress_bar=progress_bar,
        log_to_console=not progress_bar,
        console_log_interval=config.log_interval,
        load_path=str(resume.path) if resume else config.load_path,
        load_weights_only=False if resume else config.load_weights_only,
        # Names and shapes are checked already; what a checkpoint lacks is what the bases have.
        load_strict_model_weights=False,
        load_ignore_keys=weights.select_saved,
        parallelism_config=config.parallelism_config,
        device=config.device,
        precision=config.precision,
        device_train_microbatch_size=config.device_train_microbatch_size,
        accumulate_train_batch_on_tokens=True,
        seed=config.seed,
        dist_timeout=config.dist_timeout,
    )
    if trainer.state.max_duration is not None and trainer.state.timestamp >= trainer.state.max_duration:
        log.info(
            "finished already: %s is done, %d batches, in %s; for another pass raise max_duration",
            config.max_duration,
            int(trainer.state.timestamp.batch),
            save_folder,
        )
        trainer.close()
        return 0
    if any_rank_wants_to_stop(stop):
        log.info("stopped before the first batch: %s", stop.reason or "another rank's wish")
        trainer.close()
        return EXIT_REQUEUE
    if trainer._rng_state is not None and int(trainer.state.timestamp.batch_in_epoch) > 0:
        # Read from a private name: Composer restores it at the start of an epoch only and offers no other way.
        trainer.state.callbacks.append(RandomState(trainer._rng_state))
    run_trainer(trainer, saver, save_folder)
    trainer.close()
    batches = int(trainer.state.timestamp.batch)
    if preemption.wants_requeue(trainer.state):
        log.info("stopped and saved after batch %d; the same command goes on from there", batches)
        return EXIT_REQUEUE
    log.info("done: %d batches, checkpoints in %s", batches, save_folder)
    return 0


def run_trainer(trainer: Trainer, saver: WholeCheckpointSaver, save_folder: Path) -> None:
    """Fit, and leave word of what it died of if it does.

    Raises:
        UserError: the GPU's memory is too small for the settings.
    """
    try:
        trainer.fit()
    except StoppedInEvaluation:
        saver.save(trainer.state)
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            "out of GPU memory: lower device_train_microbatch_size or set it to auto, lower "
            "train_loader.dataset.max_seq_len, set model.activation_checkpointing=true, or shard the model "
            "(parallelism_config.fsdp)"
        ) from error
    except Exception as error:
        note_reason(save_folder, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        raise


def log_resume(resume: Checkpoint, done_before: int, launch: int) -> None:
    """Say where the run goes on and what the stop cost."""
    log.info(
        "launch %d resumes from %s after batch %d; %d steps were lost",
        launch,
        resume.path,
        resume.batch,
        max(0, done_before - resume.batch),
    )


def build_model(config: Config, processor: TheWorldProcessor, with_world_encoder: bool = True) -> ComposerTheWorld:
    """The model, with the VAE unless all data has latents, frozen parts in the precision that the YAML asks for."""
    frozen = config.model.frozen_dtype or ("bf16" if config.precision == "amp_bf16" else "fp32")
    model = load_model(
        config.model, seed=config.seed, with_world_encoder=with_world_encoder, frozen_dtype=DTYPES[frozen]
    )
    return ComposerTheWorld(model, processor)


def build_evaluation(config: Config, processor: TheWorldProcessor, with_latents: bool = True) -> TrainData | None:
    """The held-out data, read in the same order each time."""
    if config.eval_loader is None:
        return None
    settings = replace(config.eval_loader, dataset=replace(config.eval_loader.dataset, shuffle=False))
    wish = latent_wish(config.model, settings.dataset) if with_latents else None
    return build_data(settings, processor, config.global_train_batch_size, config.seed, False, wish)


def build_evaluator(config: Config, held_out: TrainData | None) -> Evaluator | None:
    """Composer's evaluator: loss and token accuracy over the answers."""
    if held_out is None:
        return None
    batches = math.ceil(held_out.dataset.snapshot.samples / config.global_train_batch_size)
    wanted = config.eval_subset_num_batches
    return Evaluator(
        label="eval",
        dataloader=held_out.spec,
        # The loader has no length, and Composer would not start an evaluation without one.
        subset_num_batches=batches if wanted < 0 else min(wanted, batches),
        metric_names=["AnswerLoss", "AnswerAccuracy"],
        device_eval_microbatch_size=config.device_train_microbatch_size,
    )


def find_resume(config: Config, save_folder: Path) -> Checkpoint | None:
    """The checkpoint to go on from, the same on all ranks: rank 0 looks.

    Raises:
        UserError: the run is to begin anew where the checkpoints of another lie, which later starts would go on from.
    """
    if not config.autoresume and list_checkpoints(save_folder):
        raise UserError(
            f"autoresume: false, but {save_folder} holds the checkpoints of an earlier run; set another save_folder, "
            "or autoresume=true to go on with that run"
        )
    found: list[Checkpoint | None] = [None]
    if config.autoresume and dist.get_global_rank() == 0:
        found[0] = newest_whole_checkpoint(save_folder)
    dist.broadcast_object_list(found)
    return found[0]


def launch_facts(config: Config, data: TrainData, resume: Checkpoint | None) -> dict[str, Any]:
    """What ``launches.jsonl`` records of a start."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "resumed_from": resume.path.name if resume else None,
        "resumed_batch": resume.batch if resume else 0,
        "ranks": dist.get_world_size(),
        "samples": data.dataset.snapshot.samples,
        "fingerprint": data.dataset.snapshot.fingerprint,
    }


def build_optimizer(config: Config, model: ComposerTheWorld) -> torch.optim.Optimizer:
    """The optimizer over what trains, and nothing else."""
    settings = dict(config.optimizer)
    build = lookup(OPTIMIZERS, "optimizer.name", str(settings.pop("name", "decoupled_adamw")))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    log.info(
        "%d parameters train, %d are frozen",
        sum(parameter.numel() for parameter in parameters),
        sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad),
    )
    return construct(build, "optimizer", settings, params=parameters)


def build_scheduler(config: Config) -> Any:
    """The learning-rate schedule."""
    settings = dict(config.scheduler)
    build = lookup(SCHEDULERS, "scheduler.name", str(settings.pop("name", "cosine_with_warmup")))
    return construct(build, "scheduler", settings)


def build_loggers(config: Config, save_folder: Path) -> list[Any]:
    """Composer's loggers."""
    return construct_named(LOGGERS, "loggers", logger_settings(config, save_folder))


def logger_settings(config: Config, save_folder: Path) -> dict[str, Any]:
    """The loggers' settings, so that a run that is started again goes on in the same TensorBoard folder and the same
    W&B run; what the YAML sets itself stands."""
    named = dict(config.loggers)
    if named.get("tensorboard") is not None:
        named["tensorboard"] = {"log_dir": str(save_folder / "tensorboard"), **named["tensorboard"]}
    if named.get("wandb") is not None:
        settings = dict(named["wandb"])
        # W&B knows a run by its id: one that follows from where the run is saved is the same at each start.
        same_run = hashlib.sha256(f"{config.run_name} {save_folder.absolute()}".encode()).hexdigest()[:16]
        settings["init_kwargs"] = {"id": same_run, "resume": "allow", **(settings.get("init_kwargs") or {})}
        named["wandb"] = {"name": config.run_name, **settings}
    return named


def write_config(config: Config, save_folder: Path) -> None:
    """``config.yaml`` in the save folder: the resolved configuration, secrets left out."""
    if dist.get_global_rank() != 0:
        return
    save_folder.mkdir(parents=True, exist_ok=True)
    aside = save_folder / "config.yaml.new"
    aside.write_text(OmegaConf.to_yaml(OmegaConf.create(without_secrets(asdict(config)))), encoding="utf-8")
    aside.replace(save_folder / "config.yaml")


def without_secrets(value: Any) -> Any:
    """The same structure with the values of secret-looking keys replaced."""
    if isinstance(value, dict):
        return {
            key: "<not written>" if SECRET.search(str(key)) and item is not None else without_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return value
