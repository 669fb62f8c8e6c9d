"""The stages of a run with ``stages``: which there are, which are finished, and where each has its folder.

``SAVE_FOLDER/stages.json`` is written when a stage ends. Everything else of a stage lies in ``SAVE_FOLDER/<name>/``, a
save folder like that of any run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from theworld.config.schema import STAGE_NAME
from theworld.errors import UserError, first_line
from theworld.files import read_json, write_json

FILE = "stages.json"


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: of its folder.
        checkpoint: name of its last checkpoint; None: it is not finished.
        batch: batches that it took.
    """

    name: str
    checkpoint: str | None = None
    batch: int | None = None


def read_stages(save_folder: Path) -> list[Stage]:
    """The stages in their order; none if the folder is a run's without stages.

    Raises:
        UserError: ``stages.json`` is damaged.
    """
    path = save_folder / FILE
    if not path.is_file():
        return []
    try:
        found: Any = read_json(path)  # None if it is not whole
        return [stage_of(one) for one in found["stages"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({first_line(error)}); it says which stages are finished") from error


def stage_of(fields: dict[str, Any]) -> Stage:
    """A stage, with no name in it that leads out of the folder.

    Raises:
        ValueError: there is one.
    """
    stage = Stage(**fields)
    if not re.fullmatch(STAGE_NAME, stage.name) or Path(stage.checkpoint or "").name != (stage.checkpoint or ""):
        raise ValueError(f"{stage.name} {stage.checkpoint}: not a stage's names")
    return stage


def write_stages(save_folder: Path, stages: Sequence[Stage]) -> None:
    """Put ``stages.json`` in the place of the one before."""
    save_folder.mkdir(parents=True, exist_ok=True)
    write_json(save_folder / FILE, {"stages": [asdict(one) for one in stages]}, indent=1)


def begun(save_folder: Path) -> list[Stage]:
    """Those stages of a run that have been started, in their order."""
    return [one for one in read_stages(save_folder) if (save_folder / one.name / "launches.jsonl").exists()]


def newest_run(folder: Path, saved: bool = False) -> Path:
    """The save folder to look at: the folder itself, or that of its newest stage that has been started.

    Args:
        folder: of the run.
        saved: only a stage counts that has a checkpoint.

    Raises:
        UserError: it has stages, of which none has.
    """
    if not read_stages(folder):
        return folder
    started = [folder / one.name for one in begun(folder)]
    found = [one for one in started if not saved or any(one.glob("ep*-ba*"))]
    if not found:
        raise UserError(f"{folder}: none of its stages has {'a checkpoint' if saved else 'been started'} yet")
    return found[-1]
