"""The questions of SpatialRGPT-Bench, and which kind of answer each asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theworld.errors import UserError

DIRECTION = "direction"

LENGTHS = {
    "distance_data": "distance",
    "horizontal_distance_data": "horizontal distance",
    "vertical_distance_data": "vertical distance",
    "width_data": "width",
    "height_data": "height",
}
"""Category -> what is measured."""

RELATIONS = {
    "above": ("vertical", 1),
    "below": ("vertical", -1),
    "right": ("side", 1),
    "left": ("side", -1),
    "behind": ("depth", 1),
    "front": ("depth", -1),
    "big": ("size", 1),
    "small": ("size", -1),
    "wide": ("width", 1),
    "thin": ("width", -1),
    "tall": ("height", 1),
    "short": ("height", -1),
}
"""First word of a category -> the axis that it compares on, and its end: up, right, far, much are 1."""

REGION = re.compile(r"region\s*\[?(\d+)\]?", re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """One question of the benchmark."""

    id: str
    text: str
    """With ``Region [N]``."""
    reference: str
    """The true answer, a sentence."""
    category: str

    @property
    def is_quantitative(self) -> bool:
        """Asks for a length or a direction."""
        return self.category in LENGTHS or self.category == DIRECTION

    @property
    def is_choice(self) -> bool:
        """Asks which of two regions."""
        return self.category.endswith("_choice")

    @property
    def relation(self) -> tuple[str, int]:
        """Axis and end of a qualitative question."""
        return RELATIONS[self.category.partition("_")[0]]

    @property
    def regions(self) -> tuple[int, ...]:
        """Numbers of the regions, in the order in which the question names them."""
        return tuple(dict.fromkeys(int(number) for number in REGION.findall(self.text)))


def is_category(name: str) -> bool:
    """Whether the benchmark has such a category."""
    stem, _, form = name.partition("_")
    return name in LENGTHS or name == DIRECTION or (stem in RELATIONS and form in ("choice", "predicate"))


def read_lines(path: Path, wanted: Iterable[str]) -> list[dict[str, Any]]:
    """The objects of a JSON lines file, each with these texts.

    Raises:
        UserError: no such file, a line is no JSON object, lacks a text, or an ``id`` comes twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    rows, seen = [], set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = parse_line(line)
        missing = [key for key in wanted if not isinstance(row.get(key), str)]
        if missing:
            raise UserError(f"{path}, line {number}: no JSON object with a text {missing[0]!r}")
        if row["id"] in seen:
            raise UserError(f"{path}, line {number}: the id {row['id']!r} comes twice")
        seen.add(row["id"])
        rows.append(row)
    return rows


def parse_line(line: str) -> Mapping[str, Any]:
    """The object in a line; an empty one if there is none."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def read_questions(path: Path) -> list[Question]:
    """Questions as JSON lines with ``id``, ``question``, ``ground_truth`` and ``qa_category``.

    Raises:
        UserError: as :func:`read_lines`, or a category is not the benchmark's, or a question names too few regions.
    """
    questions = []
    for row in read_lines(path, ("id", "question", "ground_truth", "qa_category")):
        question = Question(row["id"], row["question"], row["ground_truth"], row["qa_category"])
        if not is_category(question.category):
            raise UserError(f"{path}: question {question.id!r} has an unknown category {question.category!r}")
        if len(question.regions) < (1 if question.category in ("width_data", "height_data") else 2):
            raise UserError(f"{path}: question {question.id!r} names too few regions: {question.text!r}")
        questions.append(question)
    return questions


def read_answers(path: Path) -> dict[str, str]:
    """Id -> answer, from JSON lines with ``id`` and ``prediction``.

    Raises:
        UserError: as :func:`read_lines`.
    """
    return {row["id"]: row["prediction"] for row in read_lines(path, ("id", "prediction"))}
