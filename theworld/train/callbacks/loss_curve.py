"""The training loss over the whole run, kept in the checkpoint, for the picture on the model card."""

from __future__ import annotations

from typing import Any

from composer.core import Callback, State
from composer.loggers import Logger

LOSS = "loss/train/total"
MOST_POINTS = 2000


class LossCurve(Callback):
    """Means of the loss over equal numbers of batches; when there are too many, each two become one.

    What a stop lost is forgotten and trained again with the state, so that the curve is the surviving run's.
    """

    def __init__(self) -> None:
        self.batches_of_a_point = 1
        self.points: list[tuple[int, float]] = []
        self.pending: list[float] = []

    def batch_end(self, state: State, logger: Logger) -> None:
        loss = (state.total_loss_dict or {}).get(LOSS)
        if loss is None:
            return
        self.pending.append(float(loss))
        if len(self.pending) >= self.batches_of_a_point:
            self.points.append((int(state.timestamp.batch), sum(self.pending) / len(self.pending)))
            self.pending = []
        if len(self.points) >= MOST_POINTS:
            pairs = zip(self.points[::2], self.points[1::2], strict=False)
            self.points = [(later, (first + second) / 2) for (_, first), (later, second) in pairs]
            self.batches_of_a_point *= 2

    def state_dict(self) -> dict[str, Any]:
        return {
            "batches_of_a_point": self.batches_of_a_point,
            "points": [list(point) for point in self.points],
            "pending": list(self.pending),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches_of_a_point = int(state["batches_of_a_point"])
        self.points = [(int(batch), float(loss)) for batch, loss in state["points"]]
        self.pending = [float(loss) for loss in state["pending"]]
