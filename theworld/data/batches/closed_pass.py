"""A pass that has ended, as its run remembers it until the next one has begun."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from theworld.data.batches.order import Stage


@dataclass(frozen=True)
class ClosedPass:
    """A pass that has ended, until the next one has begun: new samples may still be for it."""

    position: int
    stages: tuple[Stage, ...]

    @property
    def batches(self) -> int:
        """Global batches that it had; the last one of a stage may have been short."""
        ends = [*(stage.position for stage in self.stages[1:]), self.position]
        return sum(
            math.ceil((end - stage.position) / stage.global_batch_size)
            for stage, end in zip(self.stages, ends, strict=True)
        )

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "stages": [stage.state_dict() for stage in self.stages]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ClosedPass:
        return cls(int(state["position"]), tuple(Stage.from_state(stage) for stage in state["stages"]))
