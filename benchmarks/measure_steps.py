"""A callback for :mod:`benchmarks.train`: measures some steps of a run, writes what it found, and ends the run."""

from __future__ import annotations

import json
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from composer.callbacks.speed_monitor import get_gpu_flops_available
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist


class MeasureSteps(Callback):
    """Measures ``steps`` steps after the first ``skip``, in which memory grows and kernels are chosen.

    No checkpoint is written: the ranks end as soon as the figures are on the disk.

    Args:
        path: of the JSON file with the figures, all ranks together.
        skip: at least 1.
    """

    def __init__(self, path: str, skip: int = 5, steps: int = 20) -> None:
        self.path, self.skip, self.steps = Path(path), skip, steps
        self.done = self.samples = self.tokens = 0
        self.flops = self.recomputed = 0.0
        self.ends: list[float] = []
        """When each step was over, from the last uncounted one on: the wait for a step's batch belongs to it."""

    def after_dataloader(self, state: State, logger: Logger) -> None:
        if self.done < self.skip:
            return
        model: Any = getattr(state.model, "module", state.model)
        counted = model.count_flops(state.batch)
        self.samples += len(state.batch["input_ids"])
        self.tokens += int(state.batch["attention_mask"].sum())
        self.flops += counted.total
        self.recomputed += counted.recomputed

    def batch_end(self, state: State, logger: Logger) -> None:
        self.done += 1
        if self.done >= self.skip:
            self.ends.append(now())
        if self.done < self.skip + self.steps:
            return
        slowest = max(after - before for before, after in pairwise(self.ends))
        times = {"seconds": self.ends[-1] - self.ends[0], "slowest": slowest}
        every = dist.all_gather_object({**times, "memory": peak_memory(), **self.counts()})
        if dist.get_global_rank() == 0:
            self.path.write_text(json.dumps(self.figures(every, peak_flops(state))))
        dist.barrier()
        os._exit(0)

    def counts(self) -> dict[str, float]:
        """What this rank has worked."""
        work = {"samples": self.samples, "tokens": self.tokens}
        return work | {"flops": self.flops, "recomputed": self.recomputed}

    def figures(self, every: list[dict[str, float]], peak: float | None) -> dict[str, Any]:
        """Rates of all ranks together, and what a GPU makes of what it could."""
        seconds = max(one["seconds"] for one in every)
        total = {key: sum(one[key] for one in every) for key in every[0]}
        could = peak * len(every) * seconds if peak else None
        return {
            "step": seconds / self.steps,
            "slowest": max(one["slowest"] for one in every),
            "again": bool(total["recomputed"]),
            "samples": total["samples"] / seconds,
            "tokens": total["tokens"] / seconds,
            "tflops": total["flops"] / seconds / len(every) / 1e12,
            "mfu": total["flops"] / could if could else None,
            "hfu": (total["flops"] + total["recomputed"]) / could if could else None,
            "memory": max(one["memory"] for one in every),
        }


def now() -> float:
    """Seconds, when the GPU has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory() -> int:
    """Bytes that torch has held of the GPU at most; 0 without one."""
    return torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0


def peak_flops(state: State) -> float | None:
    """A second, of a GPU in the run's precision, as its maker says; None if Composer has no figure for it."""
    return get_gpu_flops_available(state) or None if torch.cuda.is_available() else None
