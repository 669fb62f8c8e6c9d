"""The figures of a run as a text file for Prometheus, which node_exporter's textfile collector reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from theworld.files import write_bytes

FILE = "metrics.prom"

METRICS: dict[str, tuple[str, str, str]] = {
    "batch": ("theworld_batches_total", "counter", "Optimizer batches done by the run."),
    "pass": ("theworld_pass", "gauge", "Passes ended before this one."),
    "samples": ("theworld_pass_samples", "gauge", "Samples of the pass that are done."),
    "of": ("theworld_pass_samples_expected", "gauge", "Samples that the pass is to have."),
    "samples_per_s": ("theworld_samples_per_second", "gauge", "Over the last batches, all ranks together."),
    "seconds_left": ("theworld_left_seconds", "gauge", "Until max_duration, at that speed."),
    "loader_wait": ("theworld_loader_wait_ratio", "gauge", "Share of the time that the loader was waited for, 0 to 1."),
    "loss": ("theworld_loss", "gauge", "Training loss of the last batch."),
    "grad_norm": ("theworld_gradient_norm", "gauge", "Norm of the gradient of the last batch, before clipping."),
    "saved_at": ("theworld_checkpoint_timestamp_seconds", "gauge", "When this start saved last, since 1970."),
    "save_s": ("theworld_checkpoint_save_seconds", "gauge", "What the last save took."),
    "hub_backlog": ("theworld_hub_backlog", "gauge", "Checkpoints that are to go to the Hub and are not there."),
    "starts": ("theworld_starts_total", "counter", "Starts of the run."),
    "steps_lost": ("theworld_steps_lost_total", "counter", "Batches that stops have lost, of all starts."),
    "samples_without_loss": ("theworld_samples_without_loss_total", "counter", "Samples that carried no loss."),
    "lost_steps": ("theworld_lost_steps_total", "counter", "Steps of this start left out since not finite."),
    "still": ("theworld_still_seconds", "gauge", "Since the last batch, or the end of the last planned wait."),
    "time": ("theworld_heartbeat_timestamp_seconds", "gauge", "When this file was written, since 1970."),
}
"""Figure -> name, kind and help of its metric."""


def as_text(figures: Mapping[str, Any], run_name: str) -> str:
    """The figures in Prometheus' text format; what is not known is left out."""
    label = run_name.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    lines = []
    for key, (name, kind, meaning) in METRICS.items():
        value = figures.get(key)
        if value is None:
            continue
        number = "NaN" if math.isnan(value) else "+Inf" if value == math.inf else repr(float(value))
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", f'{name}{{run="{label}"}} {number}']
    return "\n".join(lines) + "\n"


def write_metrics(save_folder: Path, figures: Mapping[str, Any], run_name: str) -> None:
    """Replace ``metrics.prom`` in the save folder, whole: the collector may read at any moment."""
    write_bytes(save_folder / FILE, as_text(figures, run_name).encode(), sync=False)
