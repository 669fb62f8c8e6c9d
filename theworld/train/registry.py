"""Names in the YAML -> classes: Composer's by LLM Foundry's names, and a user's own as ``package.module:Class``."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from composer import algorithms, callbacks, loggers, optim

from theworld.config.schema import Config
from theworld.data.samples.augment import Augment
from theworld.errors import UserError, first_line
from theworld.own_code import add_code_paths, own_class
from theworld.train.averaging import EMA
from theworld.train.callbacks.generation_eval import GenerationEval
from theworld.train.event_files import EventFiles

DEFAULT_OPTIMIZER = "decoupled_adamw"
DEFAULT_SCHEDULER = "cosine_with_warmup"

Builder = Callable[..., Any]
Table = dict[str, Builder | str]
"""Name -> class, or why this project has no use for it."""

OWN_CHECKPOINTS = "checkpoints are this project's own, so that none is half written: save_interval and load_path do it"
OWN_SAMPLES = "it drops, mixes or changes samples, and each is to be trained on exactly once as it is"
OWN_PICTURES = "it takes a batch for a pair of pictures and classes, which these are not"
OWN_LAYERS = "it changes layers that this model does not have, or whose weights are the base models'"
OWN_LINES = "progress_bar and log_interval say it"

OPTIMIZERS: Table = {
    "decoupled_adamw": optim.DecoupledAdamW,
    "decoupled_sgdw": optim.DecoupledSGDW,
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}
SCHEDULERS: Table = {
    "constant": optim.ConstantScheduler,
    "constant_with_warmup": optim.ConstantWithWarmupScheduler,
    "cosine": optim.CosineAnnealingScheduler,
    "cosine_warm_restarts": optim.CosineAnnealingWarmRestartsScheduler,
    "cosine_with_warmup": optim.CosineAnnealingWithWarmupScheduler,
    "exponential": optim.ExponentialScheduler,
    "linear": optim.LinearScheduler,
    "linear_decay_with_warmup": optim.LinearWithWarmupScheduler,
    "multistep": optim.MultiStepScheduler,
    "multistep_with_warmup": optim.MultiStepWithWarmupScheduler,
    "polynomial": optim.PolynomialScheduler,
    "polynomial_with_warmup": optim.PolynomialWithWarmupScheduler,
    "step": optim.StepScheduler,
}
ALGORITHMS: Table = {
    "ema": EMA,
    "gradient_clipping": algorithms.GradientClipping,
    "layer_freezing": algorithms.LayerFreezing,
    "low_precision_groupnorm": algorithms.LowPrecisionGroupNorm,
    "low_precision_layernorm": algorithms.LowPrecisionLayerNorm,
    "sam": algorithms.SAM,
    "swa": algorithms.SWA,
    "alibi": OWN_LAYERS,
    "channels_last": "not all weights of this model are 4-dimensional, and it takes no others",
    "no_op_model": "it takes the model away",
    "augmix": OWN_PICTURES,
    "colout": OWN_PICTURES,
    "cutmix": OWN_SAMPLES,
    "cutout": OWN_PICTURES,
    "label_smoothing": OWN_PICTURES,
    "mixup": OWN_SAMPLES,
    "progressive_resizing": OWN_PICTURES,
    "randaugment": OWN_PICTURES,
    "selective_backprop": OWN_SAMPLES,
    "seq_length_warmup": OWN_SAMPLES,
    "blurpool": OWN_LAYERS,
    "factorize": OWN_LAYERS,
    "gated_linear_units": OWN_LAYERS,
    "ghost_batchnorm": OWN_LAYERS,
    "gyro_dropout": OWN_LAYERS,
    "squeeze_excite": OWN_LAYERS,
    "stochastic_depth": OWN_LAYERS,
    "weight_standardization": OWN_LAYERS,
}

NEVER_FROM_CHECKPOINTS = dir(algorithms)
"""Every name by which Composer could take an algorithm from a checkpoint. It would ``eval`` what the checkpoint, which
may come from a Hub repo, says of it; the run's algorithms are those of its own configuration."""
CALLBACKS: Table = {
    "early_stopper": callbacks.EarlyStopper,
    "free_outputs": callbacks.FreeOutputs,
    "generation_eval": GenerationEval,
    "lr_monitor": callbacks.LRMonitor,
    "memory_monitor": callbacks.MemoryMonitor,
    "memory_snapshot": callbacks.MemorySnapshot,
    "mlperf": callbacks.MLPerfCallback,
    "nan_monitor": callbacks.NaNMonitor,
    "oom_observer": callbacks.OOMObserver,
    "optimizer_monitor": callbacks.OptimizerMonitor,
    "runtime_estimator": callbacks.RuntimeEstimator,
    "speed_monitor": callbacks.SpeedMonitor,
    "system_metrics_monitor": callbacks.SystemMetricsMonitor,
    "threshold_stopper": callbacks.ThresholdStopper,
    "activation_monitor": "its hooks cannot stand activations that are computed again, as this model's are",
    "checkpoint_saver": OWN_CHECKPOINTS,
    "export_for_inference": OWN_CHECKPOINTS,
    "load_checkpoint": OWN_CHECKPOINTS,
    "generate_callback": "it knows prompts of text only, and this model's questions are about pictures",
    "image_visualizer": OWN_PICTURES,
}
LOGGERS: Table = {
    "comet_ml": loggers.CometMLLogger,
    "file_logger": loggers.FileLogger,
    "inmemory": loggers.InMemoryLogger,
    "mlflow": loggers.MLFlowLogger,
    "mosaicml": loggers.MosaicMLLogger,
    "neptune": loggers.NeptuneLogger,
    "slack": loggers.SlackLogger,
    "tensorboard": EventFiles,
    "wandb": loggers.WandBLogger,
    "console": OWN_LINES,
    "progress_bar": OWN_LINES,
    "remote_uploader_downloader": OWN_CHECKPOINTS,
}


def lookup(table: Mapping[str, Builder | str], section: str, name: str) -> Builder:
    """The class behind a name: one of Composer's, or a user's own as ``package.module:Class``.

    Raises:
        UserError: there is none, and which are near; or it is refused, and why.
    """
    if ":" in name:
        return own_class(section, name)
    found = table.get(name)
    if isinstance(found, str):
        raise UserError(f"{section}: {name} is not for this trainer: {found}")
    if found is None:
        usable = sorted(known for known, build in table.items() if not isinstance(build, str))
        near = difflib.get_close_matches(name, usable, n=3, cutoff=0.6)
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"{section}: {name!r} is not known{meant or '; known are ' + ', '.join(usable)}")
    return found


def check_names(config: Config) -> None:
    """Find each class that the YAML names, before anything heavy is loaded.

    Raises:
        UserError: the first name that is not known or not for this trainer.
    """
    add_code_paths(config.code_paths)
    find_transform(config)
    lookup(OPTIMIZERS, "optimizer.name", str(config.optimizer.get("name", DEFAULT_OPTIMIZER)))
    lookup(SCHEDULERS, "scheduler.name", str(config.scheduler.get("name", DEFAULT_SCHEDULER)))
    for table, section, named in (
        (ALGORITHMS, "algorithms", config.algorithms),
        (CALLBACKS, "callbacks", config.callbacks),
        (LOGGERS, "loggers", config.loggers),
    ):
        for name, settings in named.items():
            if settings is not None:
                lookup(table, section, name)


def find_transform(config: Config) -> Augment | None:
    """The function that ``transform`` names.

    Raises:
        UserError: there is none.
    """
    return None if config.transform is None else own_class("transform", config.transform)


def construct(build: Builder, section: str, settings: Mapping[str, Any], **extra: Any) -> Any:
    """Build from the settings in the YAML.

    Raises:
        UserError: a setting is unknown to the class, missing, or refused by it.
    """
    check_settings(build, section, settings)
    try:
        return build(**{**settings, **extra})
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"{section}: {first_line(error)}") from error


def check_settings(build: Builder, section: str, settings: Mapping[str, Any]) -> None:
    """Settings against what a class takes.

    Raises:
        UserError: one is unknown to it.
    """
    signature = inspect.signature(build)
    takes_any = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in signature.parameters.values())
    for key in settings:
        if key not in signature.parameters and not takes_any:
            raise UserError(f"{section}.{key}: unknown setting; known are {', '.join(signature.parameters)}")


def construct_named(table: Mapping[str, Builder | str], section: str, config: Mapping[str, Any]) -> list[Any]:
    """``{name: settings, ...}`` to instances, in order; ``name: null`` leaves the name out."""
    return [
        construct(lookup(table, section, name), f"{section}.{name}", settings)
        for name, settings in config.items()
        if settings is not None
    ]
