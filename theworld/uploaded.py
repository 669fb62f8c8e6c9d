"""What of a run has reached the Hub, as its save folder knows: no client is needed to read it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from theworld.files import write_json

WORK = ".hub"
"""Sub-folder of the save folder for what waits and what is on its way."""
FILE = "uploaded.json"


@dataclass(frozen=True)
class Uploads:
    """The repo that was uploaded to last.

    Attributes:
        repo: ``OWNER/NAME``; "" if there was none yet.
        batch: of the newest checkpoint that has reached it; -1 if none has.
        commits: batch to the commit with its checkpoint, of those that are known.
    """

    repo: str = ""
    batch: int = -1
    commits: dict[int, str] = field(default_factory=dict)


def read_uploads(save_folder: Path) -> Uploads:
    """What :func:`note_uploaded` has written down; nothing where the file is not there or damaged."""
    try:
        known: dict[str, Any] = json.loads((save_folder / WORK / FILE).read_text(encoding="utf-8"))
        commits = {int(batch): str(commit) for batch, commit in known.get("commits", {}).items()}
        return Uploads(str(known["repo"]), int(known["batch"]), commits)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return Uploads()


def last_uploaded(save_folder: Path, repo: str) -> int:
    """The batch of the newest checkpoint that has reached the repo from this save folder; -1 if none has."""
    known = read_uploads(save_folder)
    return known.batch if known.repo == repo else -1


def note_uploaded(save_folder: Path, repo: str, batch: int, commit: str | None = None) -> None:
    """Remember it for the next start, and for the page of the run."""
    known = read_uploads(save_folder)
    commits = known.commits if known.repo == repo else {}
    if commit:
        commits = {**commits, batch: commit}
    write_json(save_folder / WORK / FILE, {"repo": repo, "batch": batch, "commits": commits})
