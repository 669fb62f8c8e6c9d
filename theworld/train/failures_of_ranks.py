"""What each rank of a run died of, and which of them is the cause: one file a rank, the first that is no echo counts.

When one rank fails the others lose their connection to it and fail too, often before it has written anything down.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from pathlib import Path
from typing import Any

from theworld.files import read_json, write_json
from theworld.plain_text import hide_secrets

log = logging.getLogger(__name__)

FOLDER = "failed_ranks"
ECHO = re.compile(
    r"by peer|broken pipe|remote process|DistBackendError|TCPStore|socket|gloo|NCCL|process group|timed out|"
    r"monitoredBarrier|rank \d+ (?:failed|did not)",
    re.IGNORECASE,
)
"""What a rank says whose partner has gone."""


def clear_reasons(save_folder: Path) -> None:
    """Forget what an earlier start died of."""
    shutil.rmtree(save_folder / FOLDER, ignore_errors=True)


def note_reason(save_folder: Path, rank: int, reason: str, stall: bool = False) -> None:
    """Write down what a rank dies of; called in the process that dies.

    Args:
        save_folder: of the run.
        rank: that dies.
        reason: in one line.
        stall: its watchdog ends it, as something else stands still: no crash, whatever the launcher's exit code.
    """
    content = {"time": time.time(), "rank": rank, "reason": hide_secrets(reason), "stall": stall}
    try:
        (save_folder / FOLDER).mkdir(parents=True, exist_ok=True)
        write_json(save_folder / FOLDER / f"rank{rank}.json", content)
    except OSError as error:  # a full disk may be what it dies of
        log.warning("%s: cannot write down why this rank failed (%s)", save_folder, error.strerror)


def first_reason(save_folder: Path) -> str | None:
    """The oldest reason that is no echo of another's, with its rank's number; failing that the oldest."""
    first = _first(save_folder)
    if first is None:
        return None
    return f"rank {first['rank']}: {first['reason']}" if first["rank"] else str(first["reason"])


def ended_by_stall(save_folder: Path) -> bool:
    """Whether that reason is a watchdog's."""
    first = _first(save_folder)
    return first is not None and first.get("stall") is True


def _first(save_folder: Path) -> dict[str, Any] | None:
    found = [read_json(path) for path in (save_folder / FOLDER).glob("rank*.json")]
    known = [one for one in found if isinstance(one, dict) and {"time", "rank", "reason"} <= one.keys()]
    return min(known, key=lambda one: (bool(ECHO.search(one["reason"])), one["time"]), default=None)
