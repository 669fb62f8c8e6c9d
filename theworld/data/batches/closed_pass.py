"""A pass that has ended, as its run remembers it until the next one has begun."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from theworld.data.batches.mixture import PassMix
from theworld.data.batches.order import Shuffle, Stage
from theworld.data.cache.snapshot import Generation


@dataclass(frozen=True)
class ClosedPass:
    """A pass that has ended, until the next one has begun: new samples may still be for it."""

    position: int
    stages: tuple[Stage, ...]
    shuffle: Shuffle
    """Its own: the next pass may be shuffled in another way."""
    mix: PassMix
    """Its own as well."""
    generations: tuple[Generation, ...] = ()
    """That it knew; not for a checkpoint, whose proof has them."""

    @property
    def batches(self) -> int:
        """Global batches that it had; the last one of a stage may have been short."""
        ends = [*(stage.position for stage in self.stages[1:]), self.position]
        return sum(
            math.ceil((end - stage.position) / stage.global_batch_size)
            for stage, end in zip(self.stages, ends, strict=True)
        )

    def state_dict(self) -> dict[str, Any]:
        state = {
            "position": self.position,
            "stages": [stage.state_dict() for stage in self.stages],
            "shuffle": self.shuffle.state_dict(),
        }
        return {**state, "mix": self.mix.state_dict()} if self.mix.is_named else state

    @classmethod
    def from_state(cls, state: dict[str, Any], following: Shuffle) -> ClosedPass:
        """What :meth:`state_dict` gave.

        Args:
            state: the state.
            following: of the pass after it, whose settings it shares where its own are not written down.
        """
        stages = tuple(Stage.from_state(stage) for stage in state["stages"])
        epoch = following.epoch - 1
        own = state.get("shuffle")
        shuffle = Shuffle.from_state(own, epoch) if own is not None else replace(following, epoch=epoch)
        return cls(int(state["position"]), stages, shuffle, PassMix.of_pass(state, stages))
