"""The figures by which a run is judged at a glance: as metrics, in the lease for ``status.py``, in ``metrics.prom``."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any, Protocol

import torch
from composer.core import Callback, State, TimeUnit
from composer.loggers import Logger
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from theworld.checkpoint.saver import WholeCheckpointSaver
from theworld.data.batches.passes import PassDataset
from theworld.pulse import Pulse, pulse
from theworld.train.callbacks.data_report import DataReport
from theworld.train.callbacks.finite_steps import FiniteSteps
from theworld.train.callbacks.loss_curve import LOSS
from theworld.train.callbacks.pass_length import PassLength

WINDOW = 50
"""Batches over which speed and waits are told."""


class HasBacklog(Protocol):
    """What sends checkpoints to the Hub."""

    @property
    def backlog(self) -> int: ...


class Heartbeat(Callback):
    """Tells the pulse of each batch that is done; comes before all other callbacks."""

    def __init__(self, watched: Pulse = pulse) -> None:
        self.pulse = watched

    def batch_end(self, state: State, logger: Logger) -> None:
        self.pulse.batch_done(int(state.timestamp.batch))

    def eval_batch_end(self, state: State, logger: Logger) -> None:
        self.pulse.batch_done()


class GradientNorm:
    """The norm of a batch's gradient before anything is done to it.

    Taken after each backward pass, of which the batch's last has the whole gradient: where a callback sees the end of
    the batch the algorithms have clipped it already. It stays on the device until it is asked for.
    """

    def __init__(self) -> None:
        self.norms: list[torch.Tensor] = []

    def take(self, state: State) -> None:
        gradients = [parameter.grad for parameter in state.model.parameters() if parameter.grad is not None]
        sharded = [one for one in gradients if isinstance(one, DTensor)]
        whole = [one for one in gradients if not isinstance(one, DTensor)]
        self.norms = [get_total_norm(kind) for kind in (sharded, whole) if kind]

    def value(self, state: State) -> float | None:
        """The norm over all ranks' parts; all ranks call it. None where there was no gradient."""
        if not self.norms:
            return None
        norm = math.hypot(*(float(one.full_tensor() if isinstance(one, DTensor) else one) for one in self.norms))
        scaled = state.scaler is not None and state.scaler.is_enabled()
        return norm / (state.scaler.get_scale() if scaled and state.scaler is not None else 1.0)


class RunFigures(Callback):
    """Logs ``loader/wait_share`` (0 to 1), ``checkpoint/age_s``, ``checkpoint/save_s``, ``hub/backlog``,
    ``run/steps_lost`` and ``run/grad_norm``, and puts these and the place of the run where the lease tells them.

    Args:
        dataset: of the pass.
        length: of a pass, as is known now.
        saver: knows what is saved.
        uploads: knows what is to go to the Hub.
        steps: counts steps that were not finite.
        report: counts samples without loss.
        starts: of the run, this one included.
        steps_lost: by stops, over all starts.
    """

    def __init__(
        self,
        dataset: PassDataset,
        length: PassLength,
        saver: WholeCheckpointSaver,
        uploads: HasBacklog,
        steps: FiniteSteps,
        report: DataReport,
        starts: int,
        steps_lost: int,
        watched: Pulse = pulse,
    ) -> None:
        self.dataset, self.length, self.saver, self.uploads = dataset, length, saver, uploads
        self.steps, self.report, self.starts, self.steps_lost = steps, report, starts, steps_lost
        self.pulse = watched
        self.begun_at = time.time()
        self.gradient = GradientNorm()
        self.ends: deque[tuple[float, float]] = deque(maxlen=WINDOW + 1)
        """When batches ended, and how long the loader had been waited for by then."""

    def fit_start(self, state: State, logger: Logger) -> None:
        self.begun_at = time.time()
        self.ends.append((time.monotonic(), self.pulse.loader_seconds))
        self.pulse.figures = {"starts": self.starts, "steps_lost": self.steps_lost}

    def after_backward(self, state: State, logger: Logger) -> None:
        self.gradient.take(state)

    def batch_end(self, state: State, logger: Logger) -> None:
        self.ends.append((time.monotonic(), self.pulse.loader_seconds))
        (begun, waited_before), (ended, waited) = self.ends[0], self.ends[-1]
        seconds = max(ended - begun, 1e-9)
        share = min((waited - waited_before) / seconds, 1.0)
        speed = (len(self.ends) - 1) * self.dataset.global_batch_size / seconds
        loss = (state.total_loss_dict or {}).get(LOSS)
        norm = self.gradient.value(state)
        age = time.time() - (self.saver.saved_at or self.begun_at)
        told = {
            "loader/wait_share": share,
            "checkpoint/age_s": age,
            "hub/backlog": self.uploads.backlog,
            "run/steps_lost": self.steps_lost,
        }
        if self.saver.save_seconds is not None:
            told["checkpoint/save_s"] = self.saver.save_seconds
        if norm is not None:
            told["run/grad_norm"] = norm
        logger.log_metrics(told)
        self.pulse.figures = {
            **self.pulse.figures,
            **self.place(state, speed),
            "samples_per_s": speed,
            "loader_wait": share,
            "loss": None if loss is None else float(loss),
            "grad_norm": norm,
            "samples_without_loss": self.report.totals[0],
            "lost_steps": self.steps.lost_steps,
            **self.saved(),
        }

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        # After the saver's: what a save has changed is told before the next batch ends.
        self.pulse.figures = {**self.pulse.figures, **self.saved()}

    def epoch_checkpoint(self, state: State, logger: Logger) -> None:
        self.batch_checkpoint(state, logger)

    def saved(self) -> dict[str, Any]:
        """What is saved and sent."""
        saver = self.saver
        return {"saved_at": saver.saved_at, "save_s": saver.save_seconds, "hub_backlog": self.uploads.backlog}

    def place(self, state: State, speed: float) -> dict[str, Any]:
        """Where the run is, and how long it has still to go."""
        now, batch_size = state.timestamp, self.dataset.global_batch_size
        in_pass = self.length.batches
        left = batches_left(state, in_pass)
        return {
            "batch": int(now.batch),
            "pass": int(now.epoch),
            "samples": int(now.sample_in_epoch),
            "of": self.length.samples,
            "seconds_left": None if left is None or not speed else left * batch_size / speed,
        }


def batches_left(state: State, in_pass: int) -> int | None:
    """Batches until ``max_duration``; None where its unit does not tell."""
    now, end = state.timestamp, state.max_duration
    if end is None:
        return None
    if end.unit == TimeUnit.EPOCH:
        return max((end.value - int(now.epoch)) * in_pass - int(now.batch_in_epoch), 0)
    return max(end.value - int(now.batch), 0) if end.unit == TimeUnit.BATCH else None
