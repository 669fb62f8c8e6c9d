"""What a run wrote to TensorBoard's files."""

from __future__ import annotations

from pathlib import Path

TRAINING_LOSS = "loss/train/total"


def logged(save_folder: str | Path | None, name: str = TRAINING_LOSS) -> dict[int, float]:
    """A metric by batch, in the order of the batches; a later attempt's value replaces an earlier one's, also where the
    earlier one wrote once more when the later one had begun: a file's name has the second in which it was begun."""
    # Imported here: it takes seconds, and a test that starts processes reads it only at its end.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert save_folder is not None
    found: dict[int, float] = {}
    for path in sorted(
        Path(save_folder).rglob("events.*"), key=lambda path: (int(path.name.split(".")[3]), path.stat().st_mtime_ns)
    ):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
        if name in events.Tags()["scalars"]:
            found.update({event.step: event.value for event in events.Scalars(name)})
    return dict(sorted(found.items()))


def losses(save_folder: str | Path | None) -> list[float]:
    """Training loss of each batch."""
    return list(logged(save_folder).values())
