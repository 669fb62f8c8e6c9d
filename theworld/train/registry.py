"""Names in the YAML -> Composer's classes. Names are LLM Foundry's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from composer import algorithms, callbacks, loggers, optim
from composer.core import Algorithm, Callback
from composer.loggers import LoggerDestination

from theworld.errors import UserError, first_line

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "decoupled_adamw": optim.DecoupledAdamW,
    "decoupled_sgdw": optim.DecoupledSGDW,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
SCHEDULERS: dict[str, Callable[..., optim.ComposerScheduler]] = {
    "cosine_with_warmup": optim.CosineAnnealingWithWarmupScheduler,
    "linear_decay_with_warmup": optim.LinearWithWarmupScheduler,
    "constant_with_warmup": optim.ConstantWithWarmupScheduler,
}
ALGORITHMS: dict[str, Callable[..., Algorithm]] = {
    "gradient_clipping": algorithms.GradientClipping,
    "ema": algorithms.EMA,
}
CALLBACKS: dict[str, Callable[..., Callback]] = {
    "speed_monitor": callbacks.SpeedMonitor,
    "lr_monitor": callbacks.LRMonitor,
    "memory_monitor": callbacks.MemoryMonitor,
    "optimizer_monitor": callbacks.OptimizerMonitor,
    "runtime_estimator": callbacks.RuntimeEstimator,
    "early_stopper": callbacks.EarlyStopper,
    "nan_monitor": callbacks.NaNMonitor,
    "system_metrics_monitor": callbacks.SystemMetricsMonitor,
    "oom_observer": callbacks.OOMObserver,
}
LOGGERS: dict[str, Callable[..., LoggerDestination]] = {
    "tensorboard": loggers.TensorboardLogger,
    "wandb": loggers.WandBLogger,
    "mlflow": loggers.MLFlowLogger,
    "file_logger": loggers.FileLogger,
    "inmemory": loggers.InMemoryLogger,
}


def lookup(table: Mapping[str, Callable[..., Any]], section: str, name: str) -> Callable[..., Any]:
    """The class behind a name.

    Raises:
        UserError: there is none; names those that are.
    """
    if name not in table:
        raise UserError(f"{section}: {name!r} is not known; known are {', '.join(sorted(table))}")
    return table[name]


def construct(build: Callable[..., Any], section: str, settings: Mapping[str, Any], **extra: Any) -> Any:
    """Build from the settings in the YAML.

    Raises:
        UserError: a setting is unknown to the class, missing, or refused by it.
    """
    signature = inspect.signature(build)
    takes_any = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in signature.parameters.values())
    for key in settings:
        if key not in signature.parameters and not takes_any:
            raise UserError(f"{section}.{key}: unknown setting; known are {', '.join(signature.parameters)}")
    try:
        return build(**{**settings, **extra})
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"{section}: {first_line(error)}") from error


def construct_named(table: Mapping[str, Callable[..., Any]], section: str, config: Mapping[str, Any]) -> list[Any]:
    """``{name: settings, ...}`` to instances, in order; ``name: null`` leaves the name out."""
    return [
        construct(lookup(table, section, name), f"{section}.{name}", settings)
        for name, settings in config.items()
        if settings is not None
    ]
