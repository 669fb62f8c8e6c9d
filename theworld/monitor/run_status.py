"""The state of a run, read from the files of its save folder: what it does, how far it is, what it has cost.

Reads small files only and imports nothing heavy, so that it can be asked at any time, on a login node, while the run
works. What the run itself says of its place is in the lease, at most :data:`~theworld.lease.BEAT` seconds old.
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from theworld.checkpoint.on_disk import Checkpoint, is_whole, list_checkpoints
from theworld.errors import EXIT_DONE, UserError
from theworld.files import read_json_lines
from theworld.lease import FOLDER, SILENCE, Holder, newest_holder, silence
from theworld.monitor.ends import End, read_ends

SILENT_AFTER = 45.0
"""Seconds without a sign of life, given each 10, after which a run counts as stuck."""
STUCK_AFTER = 60.0
"""Seconds without a batch, planned waits left out, after which a run that lives counts as stuck."""


@dataclass(frozen=True)
class SavedOne:
    """The newest checkpoint on the disk."""

    name: str
    batch: int
    whole: bool
    age_s: float
    bytes: int


@dataclass
class RunStatus:
    """What is known of a run. Shares are percent; None: not known.

    Attributes:
        state: running, waiting (as planned), stuck, stopped, finished, or not started.
        why: more about it, in words; "" if there is no more.
    """

    state: str
    why: str = ""
    launch: int | None = None
    where: str | None = None
    heartbeat_age_s: float | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    checkpoint: SavedOne | None = None
    starts: int = 0
    preemptions: int = 0
    crashes: int = 0
    steps_lost: int = 0
    last_end: End | None = None
    disk_free_bytes: int | None = None

    def as_json(self) -> dict[str, Any]:
        """All of it under flat names."""
        told = self.figures
        place = {key: told.get(key) for key in ("batch", "pass", "samples", "of", "samples_per_s", "seconds_left")}
        share = told.get("loader_wait")
        return finite(
            {
                "state": self.state,
                "why": self.why,
                "launch": self.launch,
                "where": self.where,
                "heartbeat_age_s": self.heartbeat_age_s,
                **place,
                "done_percent": percent(told.get("samples"), told.get("of")),
                "loader_wait_percent": None if share is None else 100 * share,
                **{key: told.get(key) for key in ("loss", "grad_norm", "save_s", "hub_backlog")},
                "checkpoint": None if self.checkpoint is None else vars(self.checkpoint),
                "starts": self.starts,
                "preemptions": self.preemptions,
                "crashes": self.crashes,
                "steps_lost": self.steps_lost,
                **{key: told.get(key) for key in ("samples_without_loss", "lost_steps")},
                "last_end": None if self.last_end is None else vars(self.last_end),
                "disk_free_bytes": self.disk_free_bytes,
            }
        )


def read_status(save_folder: Path) -> RunStatus:
    """The state of the run in a save folder, now.

    Raises:
        UserError: there is no such folder, or one of its records is damaged.
    """
    if not save_folder.is_dir():
        raise UserError(f"{save_folder}: no such folder; give the run's save_folder")
    try:
        starts = read_json_lines(save_folder / "launches.jsonl")
        failures = read_json_lines(save_folder / "failures.jsonl")
    except ValueError as error:
        raise UserError(f"{save_folder}: launches.jsonl or failures.jsonl is damaged ({error})") from error
    ends = read_ends(save_folder)
    holder = newest_holder(save_folder / FOLDER)
    found = RunStatus("not started") if holder is None else state_of(save_folder, holder, ends)
    found.figures = holder.doing.get("figures") or {} if holder is not None else {}
    found.checkpoint = newest_saved(save_folder)
    found.starts = len(starts)
    found.preemptions = sum(end.is_preemption for end in ends)
    found.crashes = len(failures)
    found.steps_lost = sum(int(start.get("steps_lost") or 0) for start in starts)
    found.last_end = ends[-1] if ends else None
    found.disk_free_bytes = shutil.disk_usage(save_folder).free
    return found


def state_of(save_folder: Path, holder: Holder, ends: list[End]) -> RunStatus:
    """What the newest start does, by its signs of life."""
    age = age_of_sign(save_folder / FOLDER, holder.launch)
    where = str(holder.process) if holder.process is not None else None
    state, why = judge_state(holder, age, next((end for end in ends if end.launch == holder.launch), None))
    return RunStatus(state, why, holder.launch, where, None if holder.ended else age)


def judge_state(holder: Holder, age: float, end: End | None) -> tuple[str, str]:
    """State and reason of a start.

    Args:
        holder: what its lease says.
        age: seconds since its last sign of life.
        end: what it has written down of its end, if it has ended.
    """
    doing = holder.doing
    if holder.ended:
        if end is not None and end.exit_code == EXIT_DONE:
            return "finished", ""
        return "stopped", f"exit code {end.exit_code}: {end.reason}" if end is not None else ""
    if holder.process is not None and holder.process.is_gone():
        return "stopped", "its process is gone: killed, or crashed"
    if age >= SILENCE:
        here = holder.process is not None and holder.process.is_here()
        return ("stuck" if here else "stopped"), f"no sign of life for {age:.0f} s"
    if age >= SILENT_AFTER:
        return "stuck", f"no sign of life for {age:.0f} s"
    what = " ".join(str(doing.get(key)) for key in ("what", "detail") if doing.get(key))
    still = float(doing.get("still") or 0.0)
    waits = (doing.get("found") or {}).get("waits") or what
    if doing.get("planned") or (doing.get("found") or {}).get("planned"):
        return "waiting", f"{what}, for {still:.0f} s"
    if still >= STUCK_AFTER:
        return "stuck", f"no batch for {still:.0f} s: waiting for {waits}"
    return "running", what


def age_of_sign(folder: Path, launch: int) -> float:
    """Seconds since a start's last sign of life: by the file system's clock, or, where the folder cannot be written,
    by this machine's."""
    try:
        return silence(folder, launch)
    except OSError:
        return max(time.time() - (folder / f"{launch}.json").stat().st_mtime, 0.0)


def newest_saved(save_folder: Path) -> SavedOne | None:
    """The newest checkpoint, whole or not; nothing but its end is read."""
    for checkpoint in list_checkpoints(save_folder):
        try:
            return described(checkpoint)
        except FileNotFoundError:  # removed meanwhile, as the retention does
            continue
    return None


def described(checkpoint: Checkpoint) -> SavedOne:
    path = checkpoint.path
    files = list(path.iterdir()) if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files)
    whole = is_whole(path, contents=False)
    return SavedOne(path.name, checkpoint.batch, whole, max(time.time() - path.stat().st_mtime, 0.0), size)


def percent(part: float | None, whole: float | None) -> float | None:
    """A share in percent; None if it is not known."""
    return None if part is None or not whole else 100 * part / whole


def finite(value: Any) -> Any:
    """The same with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
