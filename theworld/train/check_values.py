"""Times, names and settings of the trainer's sections, checked before torch and Composer are imported."""

from __future__ import annotations

import difflib
import math
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from theworld.errors import UserError

TIME = re.compile(r"0*([1-9]\d*)(ep|ba|sp|tok)?")
OTHER_TIME = re.compile(r"[\d.]+(sec|dur|iter|ep|ba|sp|tok)")
CONSOLE = ("ep", "ba")

KNOWN: dict[str, tuple[str, ...]] = {
    "optimizer.name": ("adam", "adamw", "decoupled_adamw", "decoupled_sgdw", "sgd"),
    "scheduler.name": (
        *("constant", "constant_with_warmup", "cosine", "cosine_warm_restarts", "cosine_with_warmup", "exponential"),
        *("linear", "linear_decay_with_warmup", "multistep", "multistep_with_warmup", "polynomial"),
        *("polynomial_with_warmup", "step"),
    ),
    "algorithms": (
        *("alibi", "augmix", "blurpool", "channels_last", "colout", "cutmix", "cutout", "ema", "factorize"),
        *("gated_linear_units", "ghost_batchnorm", "gradient_clipping", "gyro_dropout", "label_smoothing"),
        *("layer_freezing", "low_precision_groupnorm", "low_precision_layernorm", "mixup", "no_op_model"),
        *("progressive_resizing", "randaugment", "sam", "selective_backprop", "seq_length_warmup", "squeeze_excite"),
        *("stochastic_depth", "swa", "weight_standardization"),
    ),
    "callbacks": (
        *("activation_monitor", "checkpoint_saver", "early_stopper", "export_for_inference", "free_outputs"),
        *("generate_callback", "generation_eval", "image_visualizer", "load_checkpoint", "lr_monitor"),
        *("memory_monitor", "memory_snapshot", "mlperf", "nan_monitor", "oom_observer", "optimizer_monitor"),
        *("runtime_estimator", "speed_monitor", "system_metrics_monitor", "threshold_stopper"),
    ),
    "loggers": (
        *("comet_ml", "console", "file_logger", "inmemory", "mlflow", "mosaicml", "neptune", "progress_bar"),
        *("remote_uploader_downloader", "slack", "tensorboard", "wandb"),
    ),
}
"""Names of :mod:`theworld.train.registry`, those with a refusal included; a test holds the two together."""


def check_time(key: str, value: int | str, units: Sequence[str] = ("ep", "ba", "sp", "tok")) -> None:
    """One of Composer's time strings, a whole number of some unit, or a number of epochs.

    Raises:
        UserError: it is another, or zero, or in parts of an epoch or in seconds.
    """
    text = str(value)
    match = TIME.fullmatch(text)
    if match and (match[2] or "ep") in units:
        return
    told = "is not a time"
    if OTHER_TIME.fullmatch(text) or text.strip("0") in ("", *units):
        told = f"is no whole number, 1 or more, of {', '.join(units)}"
    raise UserError(f"{key}: {value!r} {told}; write for example 1ep (epochs) or 500ba (batches)")


def check_known(section: str, name: object) -> None:
    """A name that the section knows, or ``module:Class``.

    Raises:
        UserError: it is neither; names the nearest.
    """
    known = KNOWN[section]
    if not isinstance(name, str):
        raise UserError(f"{section}: {name!r} is no name; known are {', '.join(known)}")
    if ":" in name or name in known:
        return
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    meant = f"; did you mean {' or '.join(near)}?" if near else "; known are " + ", ".join(known)
    raise UserError(f"{section}: {name!r} is not known{meant}")


def check_sections(named: Mapping[str, Mapping[Any, Any]]) -> None:
    """Sections of the form ``name: settings``.

    Raises:
        UserError: a name is not known, or its settings are no keys with values.
    """
    for section, members in named.items():
        for name, settings in members.items():
            if settings is None:
                continue
            check_known(section, name)
            if not isinstance(settings, Mapping):
                raise UserError(f"{section}.{name}: {settings!r}: expected its settings, for example {name}: {{}}")


def check_optimizer(settings: Mapping[Any, Any], section: str = "optimizer") -> None:
    """The numbers that every optimizer has, or one of its groups.

    Raises:
        UserError: one of them is none.
    """
    for key in ("lr", "eps", "weight_decay", "momentum"):
        if key in settings and not is_number(settings[key]):
            raise UserError(f"{section}.{key}: {settings[key]!r}: expected a number, 0 or more")
    betas = settings.get("betas", (0.9, 0.95))
    if not (isinstance(betas, (list, tuple)) and len(betas) == 2 and all(is_number(one, below=1) for one in betas)):
        raise UserError(f"{section}.betas: {betas!r}: expected two numbers from 0 up to 1: {section}.betas=[0.9,0.95]")


def is_number(value: object, below: float = math.inf) -> bool:
    """Whether it is a finite number of 0 or more."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < below


def check_signals(names: Sequence[str]) -> None:
    """Names of signals that a process can catch.

    Raises:
        UserError: one is none.
    """
    for name in names:
        known = signal.Signals.__members__
        if name not in known or known[name] in (signal.SIGKILL, signal.SIGSTOP):
            raise UserError(f"preemption.signals: {name}: no signal that can be caught; for example [SIGTERM,SIGUSR1]")
