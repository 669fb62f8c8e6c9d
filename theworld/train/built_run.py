"""A start of a run with all its parts, as its other files take it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from theworld.checkpoint.fence import Fence
from theworld.checkpoint.on_disk import Checkpoint
from theworld.checkpoint.weights import Weights
from theworld.config.schema import Config
from theworld.data.batches.expectation import Expectation
from theworld.signals import StopRequest
from theworld.train.composer_model import ComposerTheWorld
from theworld.train.data import TrainData


@dataclass
class Run:
    """A start of a run, all parts built.

    Attributes:
        held_out: the evaluation sets, by the name that their evaluations are logged under.
        load_path: checkpoint to load, of this machine; None: begin with the base models.
        resume: that checkpoint, if it is the run's own and the run goes on from it.
    """

    config: Config
    save_folder: Path
    model: ComposerTheWorld
    weights: Weights
    data: TrainData
    held_out: dict[str, TrainData]
    expectation: Expectation
    load_path: str | None
    resume: Checkpoint | None
    fence: Fence
    stop: StopRequest

    @property
    def attempt(self) -> int:
        """The number of this start."""
        return self.fence.launch
