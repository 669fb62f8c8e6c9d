"""Crashes of a run, counted, so that a job that always dies at the same step is not started for ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from theworld.errors import EXIT_REQUEUE, EXIT_RUN_AGAIN
from theworld.files import append_line, last_json_line, read_json_lines
from theworld.train.failures_of_ranks import clear_reasons, first_reason

MOST_AT_ONE_STEP = 3


@dataclass(frozen=True)
class Verdict:
    """Whether to start again, and the line that says why."""

    again: bool
    line: str


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


def judge(save_folder: Path, exit_code: int) -> Verdict:
    """Record the crash that just happened and say whether to start again.

    What the trainer left by itself to be started again (75, 85) is no crash, and is not counted.

    Args:
        save_folder: of the run.
        exit_code: of the step that trained.
    """
    if exit_code in (EXIT_RUN_AGAIN, EXIT_REQUEUE):
        return Verdict(True, f"exit code {exit_code} is not a crash; starting again")
    attempt, batch = last_step(save_folder)
    reason = first_reason(save_folder) or f"exit code {exit_code}"
    clear_reasons(save_folder)
    path = save_folder / "failures.jsonl"
    record: dict[str, Any] = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "launch": attempt,
        "batch": batch,
        "exit_code": exit_code,
        "reason": reason,
    }
    save_folder.mkdir(parents=True, exist_ok=True)
    append_line(path, record)
    at_this_step = 0
    for failure in reversed(read_json_lines(path)):
        if failure["batch"] != batch:
            break
        at_this_step += 1
    if at_this_step >= MOST_AT_ONE_STEP:
        return Verdict(False, f"failed {at_this_step} times after batch {batch}: {reason}; not started again ({path})")
    return Verdict(True, f"failed after batch {batch}: {reason}; starting again ({at_this_step} of {MOST_AT_ONE_STEP})")
