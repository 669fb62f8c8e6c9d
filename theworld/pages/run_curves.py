"""The metrics of a run over all its starts, from its TensorBoard files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MOST_POINTS = 2000
"""Of a metric in one start's file; of more, some by chance and the last."""


@dataclass
class Curves:
    """Metrics by name: values by batch. ``times`` has when each start wrote its last value, seconds since 1970."""

    values: dict[str, dict[int, float]] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)

    def points(self, name: str) -> list[tuple[int, float]]:
        """Batches and values of a metric, in order; [] where nothing logged it."""
        return sorted(self.values.get(name, {}).items())

    def last(self, name: str) -> float | None:
        """The newest value of a metric."""
        points = self.points(name)
        return points[-1][1] if points else None


def read_curves(save_folder: Path) -> Curves:
    """What all starts logged. Where a later start trained a batch again its value stands, and what an earlier one did
    beyond the place where the later one went on is left out, as in the checkpoint."""
    # Imported here: it takes seconds.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = Curves()
    for path in sorted(save_folder.rglob("events.out.tfevents.*"), key=begun):
        events = EventAccumulator(str(path), size_guidance={"scalars": MOST_POINTS}).Reload()
        newest = 0.0
        for name in events.Tags()["scalars"]:
            scalars = events.Scalars(name)
            newest = max(newest, scalars[-1].wall_time)
            first = min(scalar.step for scalar in scalars)
            kept = {step: value for step, value in curves.values.get(name, {}).items() if step < first}
            curves.values[name] = kept | {scalar.step: scalar.value for scalar in scalars}
        if newest:
            curves.times.append(newest)
    return curves


def begun(path: Path) -> tuple[int, int]:
    """When a file was begun, in the second that its name has. When it was changed last tells nothing: a start that was
    superseded may write once more."""
    second = path.name.split(".")[3]
    return int(second) if second.isdigit() else 0, path.stat().st_mtime_ns
