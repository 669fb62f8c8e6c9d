"""A callback for :mod:`benchmarks.step`: where the time of a step goes, by what Composer tells its callbacks."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import psutil
import torch
from composer.core import Callback, Event, State
from composer.loggers import Logger

MODEL, COMPOSER, CALLBACKS = "model", "Composer", "callbacks and loggers"
ENDS: dict[Event, str] = {
    Event.BEFORE_DATALOADER: COMPOSER,
    Event.AFTER_DATALOADER: "wait for the loader",
    Event.BATCH_START: "copy to the device, counts",
    Event.BEFORE_TRAIN_BATCH: COMPOSER,
    Event.BEFORE_FORWARD: "split into microbatches",
    Event.AFTER_FORWARD: MODEL,
    Event.BEFORE_LOSS: COMPOSER,
    Event.AFTER_LOSS: MODEL,
    Event.BEFORE_BACKWARD: COMPOSER,
    Event.AFTER_BACKWARD: MODEL,
    Event.AFTER_TRAIN_BATCH: COMPOSER,
    Event.BATCH_END: COMPOSER,
}
"""What the time before an event was for, back to the event before it."""


class TimeSteps(Callback):
    """Times the run's steps after the first ``skip``, and writes what it found when it ends.

    The time that callbacks and loggers take at an event, this one's included, is counted as theirs, by class.

    Args:
        path: of the JSON file: seconds of each step, seconds of all by what they were for and by callback.
    """

    def __init__(self, path: str, skip: int = 4) -> None:
        self.path, self.skip = Path(path), skip
        self.steps: list[float] = []
        self.spent: dict[str, float] = defaultdict(float)
        self.by_callback: dict[str, float] = defaultdict(float)
        self.inside = 0.0
        """Seconds in callbacks so far."""
        self.last = self.last_inside = self.began = 0.0
        self.done, self.padding, self.tokens, self.graphs = 0, 0, 0, 0
        self.workers_began = self.workers_latest = 0.0
        self.known: tuple[dict[str, float], dict[str, float]] = {}, {}
        """What was spent until the end of the last step: what comes after it, a checkpoint, is not a step's."""

    def fit_start(self, state: State, logger: Logger) -> None:
        for callback in state.callbacks:
            callback.run_event = self.timed(callback.run_event, type(callback).__name__)  # type: ignore[method-assign]
        for algorithm in state.algorithms:
            algorithm.apply = self.as_model(algorithm.apply)  # type: ignore[method-assign]
        for optimizer in state.optimizers:
            optimizer.register_step_pre_hook(lambda *_: self.mark(COMPOSER))
            optimizer.register_step_post_hook(lambda *_: self.mark(MODEL))
        self.mark(COMPOSER)

    def run_event(self, event: Event, state: State, logger: Logger) -> None:
        super().run_event(event, state, logger)
        if event == Event.BEFORE_FORWARD:
            self.padding += int((state.batch["attention_mask"] == 0).sum())
            self.tokens += state.batch["attention_mask"].numel()
        if event == Event.BATCH_END:
            self.end_step()
        elif event == Event.FIT_END:
            self.write()

    def timed(self, run_event: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Of a callback. The first at an event ends the time before it."""

        @wraps(run_event)
        def run(event: Event, state: State, logger: Logger) -> Any:
            begun = time.perf_counter()
            if event in ENDS:
                self.mark(ENDS[event])
            try:
                return run_event(event, state, logger)
            finally:
                seconds = time.perf_counter() - begun
                self.inside += seconds
                self.by_callback[name] += seconds

        return run

    def as_model(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        """Of an algorithm: clipping gradients belongs to what a step computes."""

        @wraps(apply)
        def run(*arguments: Any, **settings: Any) -> Any:
            self.mark(COMPOSER)
            try:
                return apply(*arguments, **settings)
            finally:
                self.mark(MODEL)

        return run

    def mark(self, purpose: str) -> None:
        """The time since the last mark, callbacks left out, was for this."""
        now = time.perf_counter()
        self.spent[purpose] += now - self.last - (self.inside - self.last_inside)
        self.last, self.last_inside = now, self.inside

    def end_step(self) -> None:
        self.done += 1
        now = time.perf_counter()
        if self.done == self.skip:
            self.spent.clear()
            self.by_callback.clear()
            self.padding = self.tokens = 0
            self.inside = self.last_inside = 0.0
            self.last = now
            self.workers_began = worker_seconds()
            self.graphs = graphs_compiled()
        elif self.done > self.skip:
            self.steps.append(now - self.began)
            self.known = dict(self.spent), dict(self.by_callback)
            # At the end of a pass its workers have left.
            self.workers_latest = max(self.workers_latest, worker_seconds())
        self.began = now

    def write(self) -> None:
        spent, by_callback = self.known
        callbacks = max(0.0, sum(self.steps) - sum(spent.values()))
        found = {
            "steps": self.steps,
            "spent": {**spent, CALLBACKS: callbacks},
            "callbacks": dict(sorted(by_callback.items(), key=lambda item: -item[1])[:6]),
            "workers": max(0.0, self.workers_latest - self.workers_began),
            "padding": self.padding / max(1, self.tokens),
            "graphs": self.graphs,
            "again": graphs_compiled() - self.graphs,
        }
        self.path.write_text(json.dumps(found))


def worker_seconds() -> float:
    """CPU time of the loader's workers that are at work."""
    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children(recursive=True))


def graphs_compiled() -> int:
    """That torch.compile has made so far, in this process."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]
