"""``ends.jsonl``: how each start of a run has ended, as far as it could still say so."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from theworld.errors import EXIT_REQUEUE, UserError
from theworld.files import append_line, read_json_lines
from theworld.plain_text import hide_secrets

log = logging.getLogger(__name__)

FILE = "ends.jsonl"


@dataclass(frozen=True)
class End:
    """The end of a start.

    Attributes:
        launch: its number.
        exit_code: what it left with.
        reason: in one line; "" if there is none to give.
        time: when, as ISO text in UTC.
    """

    launch: int
    exit_code: int
    reason: str = ""
    time: str = ""

    @property
    def is_preemption(self) -> bool:
        """Whether it was asked to stop, and has saved."""
        return self.exit_code == EXIT_REQUEUE


def note_end(save_folder: Path, launch: int, exit_code: int, reason: str = "") -> None:
    """Append how this start ends; called on rank 0. A disk that is full loses the line and nothing else."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = {"launch": launch, "time": now, "exit_code": exit_code, "reason": hide_secrets(reason)}
    try:
        append_line(save_folder / FILE, line)
    except OSError as error:
        log.warning("%s: cannot write down how this start has ended (%s)", save_folder / FILE, error)


def read_ends(save_folder: Path) -> list[End]:
    """All of them, oldest first.

    Raises:
        UserError: the file is damaged.
    """
    path = save_folder / FILE
    try:
        return [
            End(int(line["launch"]), int(line["exit_code"]), str(line.get("reason", "")), str(line.get("time", "")))
            for line in read_json_lines(path)
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error})") from error
