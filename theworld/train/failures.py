"""Crashes of a run, counted, so that a job that gets nowhere is not started for ever."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from theworld.checkpoint.on_disk import clear_half_saves, list_checkpoints
from theworld.disk_space import free_space, is_full
from theworld.errors import EXIT_REQUEUE, EXIT_RUN_AGAIN
from theworld.files import append_line, last_json_line, read_json_lines
from theworld.lease import FOLDER, Process, newest_holder
from theworld.train.failures_of_ranks import clear_reasons, ended_by_stall, first_reason

log = logging.getLogger(__name__)

MOST_AT_ONE_STEP = 3
MOST_WITHOUT_CHECKPOINT = 5
"""Crashes at whatever steps with no new checkpoint between them, after which a person has to look."""
FIRST_PAUSE = 30.0
LONGEST_PAUSE = 3600.0


@dataclass(frozen=True)
class Verdict:
    """Whether to start again, after how many seconds, and the line that says why."""

    again: bool
    line: str
    pause: int = 0


def last_step(save_folder: Path) -> tuple[int, int]:
    """The newest attempt and how far it got: batches done by it, or where it was to go on if it did none."""
    newest = last_json_line(save_folder / "launches.jsonl")
    if newest is None:
        return 0, 0
    done = newest["resumed_batch"]
    for path in (save_folder / "ledger").glob("rank*.jsonl"):
        line = last_json_line(path)
        if line is not None and line["launch"] == newest["launch"]:
            done = max(done, line["batch"] + 1)
    return newest["launch"], done


def judge(save_folder: Path, exit_code: int, first_pause: float = FIRST_PAUSE) -> Verdict:
    """Record the crash that just happened and say whether to start again.

    What the trainer left by itself to be started again (75, 85), or a watchdog did, is no crash, and is not counted.

    Args:
        save_folder: of the run.
        exit_code: of the step that trained.
        first_pause: seconds before the first start after a crash; twice as many before each further one, up to an
            hour, until there is a new checkpoint.
    """
    if exit_code in (EXIT_RUN_AGAIN, EXIT_REQUEUE):
        return Verdict(True, f"exit code {exit_code} is not a crash; starting again")
    attempt, batch = last_step(save_folder)
    checkpoint = next((one.batch for one in list_checkpoints(save_folder)), 0)
    reason, stall = first_reason(save_folder) or f"exit code {exit_code}", ended_by_stall(save_folder)
    clear_reasons(save_folder)
    if stall:
        # A rank that stands still has to be killed, and where that is rank 0 the launcher's exit code is its kill's.
        told = f"{reason}: no crash, although the exit code is {exit_code}; starting again in {int(first_pause)} s"
        return Verdict(True, told, int(first_pause))
    path = save_folder / "failures.jsonl"
    record: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "launch": attempt,
        "batch": batch,
        "checkpoint": checkpoint,
        "exit_code": exit_code,
        "reason": reason,
    }
    row = [*since_progress(path, checkpoint), record]
    at_this_step = sum(failure["batch"] == batch for failure in row)
    record["again"] = at_this_step < MOST_AT_ONE_STEP and len(row) < MOST_WITHOUT_CHECKPOINT
    try:
        write_failure(save_folder, path, record)
    except OSError as error:
        return Verdict(
            False,
            f"failed after batch {batch}: {reason}; not started again, for that cannot be written down: {path}: "
            f"{error.strerror}; {free_space(save_folder)}",
        )
    since = f"since the checkpoint of batch {checkpoint}" if checkpoint else "without a checkpoint"
    if not record["again"]:
        told = f"failed {len(row)} times {since}, the last time after batch {batch}"
        if at_this_step >= MOST_AT_ONE_STEP:
            told = f"failed {at_this_step} times after batch {batch}"
        return Verdict(False, f"{told}: {reason}; not started again ({path})")
    pause = int(min(first_pause * 2 ** (len(row) - 1), LONGEST_PAUSE))
    return Verdict(
        True,
        f"failed after batch {batch}: {reason}; starting again in {pause} s "
        f"(failure {len(row)} of {MOST_WITHOUT_CHECKPOINT} {since})",
        pause,
    )


def write_failure(save_folder: Path, path: Path, record: dict[str, Any]) -> None:
    """Append a failure, on a full disk in the place of what the start that died has left half written.

    Raises:
        OSError: it cannot be written.
    """
    save_folder.mkdir(parents=True, exist_ok=True)
    try:
        append_line(path, record)
        return
    except OSError as error:
        if not is_full(error):
            raise
    holder, own = newest_holder(save_folder / FOLDER), Process()
    # Of this job's own start the job script knows that it has ended; another's may be saving.
    of_this_job = holder is not None and holder.process is not None and holder.process.job == own.job is not None
    if holder is None or of_this_job or holder.may_be_followed(own):
        clear_half_saves(save_folder)
    append_line(path, record)


def since_progress(path: Path, checkpoint: int) -> list[dict[str, Any]]:
    """The last failures of a run with the same newest checkpoint, oldest first.

    A run that a person has started once more after it was given up has its tries anew.

    Args:
        path: ``failures.jsonl``; one that is damaged counts as none.
        checkpoint: the batch of the newest checkpoint; 0: there is none.
    """
    try:
        failures = read_json_lines(path)
    except ValueError as error:
        log.warning("%s: damaged (%s); earlier failures are not counted", path, error)
        failures = []
    row: list[dict[str, Any]] = []
    for failure in reversed(failures):
        if failure.get("checkpoint") != checkpoint or not failure.get("again", True):
            break
        row.insert(0, failure)
    return row
