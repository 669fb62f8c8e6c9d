"""A table of questions, references and answers with their pictures, as each logger can show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from composer.loggers import Logger, MLFlowLogger, WandBLogger
from PIL import Image

from theworld.evaluation.score_table import Scored
from theworld.inference.side_by_side import side_by_side
from theworld.plain_text import plain

COLUMNS = ["picture", "question", "reference", "answer", "verdict"]
SIDE = 512
"""Pixels; a run keeps these pictures for every evaluation."""


@dataclass(frozen=True)
class Shown:
    """One answer with the pictures as the model saw them."""

    pictures: Sequence[Image.Image]
    scored: Scored

    @property
    def texts(self) -> list[str]:
        """Question, reference, answer, verdict."""
        asked, verdict = self.scored.question, {True: "right", False: "wrong", None: "undecided"}
        return [
            plain(asked.text),
            plain(asked.reference),
            plain(self.scored.answer),
            verdict[self.scored.verdict.right],
        ]


def log_answers(logger: Logger, name: str, shown: Sequence[Shown], batch: int) -> None:
    """Give the table to the loggers: W&B's holds the pictures, others get them beside it, numbered as in the table.

    Not to MLflow, which keeps such things as files, without a server in the folder that the command was called from.
    """
    pictures = [side_by_side([scaled(picture) for picture in one.pictures]) for one in shown]
    numbered = [[str(number), *one.texts] for number, one in enumerate(shown)]
    for destination in (one for one in logger.destinations if not isinstance(one, MLFlowLogger)):
        if isinstance(destination, WandBLogger):
            if destination._enabled:  # Composer offers no public name, and W&B's classes are there only then
                rows = [[as_wandb(picture), *row[1:]] for picture, row in zip(pictures, numbered, strict=True)]
                destination.log_table(COLUMNS, rows, f"{name}/answers", batch)
            continue
        destination.log_table(COLUMNS, numbered, f"{name}/answers", batch)
        for number, picture in enumerate(pictures):
            destination.log_images(np.asarray(picture), f"{name}/picture {number}", channels_last=True, step=batch)


def scaled(picture: Image.Image) -> Image.Image:
    """A picture whose longest side is at most :data:`SIDE`."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    return small


def as_wandb(picture: Image.Image) -> Any:
    """A picture as a cell of W&B's tables."""
    import wandb  # pyright: ignore[reportMissingImports] -- an extra; the linters run without it

    return wandb.Image(picture)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as TensorBoard's texts show it; what stands in a cell cannot end it."""
    lines = [list(columns), ["---"] * len(columns), *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: Any) -> str:
    """A value as text that is no markup."""
    text = " ".join(str(value).split())
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+!|<>~&" else letter for letter in text)
