"""Region numbers: from mentions and turn-local numbers to one numbering for picture and text.

OpenSpatialDataset has one box per ``<mask>`` mention, in the order of mention through the whole
conversation, repeats included. ``Region [N]`` in an answer counts the mentions of that turn's own
question. A picture has one number per distinct box, so both texts are rewritten to that number:
mention -> box -> number by first appearance.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MENTION = re.compile(r"<mask>(?:\s*<depth>)?")
CITATION = re.compile(r"Region \[(\d+)\]")
LONGEST_NUMBER = 9
"""Digits of a region's number."""
IMAGE_TOKEN = re.compile(r"<image>\n?")


@dataclass(frozen=True)
class Region:
    """A distinct box. ``number`` is what text and picture call it; ``box`` is (x1, y1, x2, y2) in pixels as in the
    data: it may exceed the image or be inverted."""

    number: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Turn:
    """A question and its answer, regions named by their global numbers."""

    question: str
    answer: str


def mention_numbers(boxes: Sequence[Sequence[float]]) -> list[int]:
    """The global number of each mention: identical boxes are one region, numbered by first appearance."""
    numbers: dict[tuple[float, ...], int] = {}
    return [numbers.setdefault(tuple(box), len(numbers)) for box in boxes]


def unique_regions(boxes: Sequence[Sequence[float]]) -> list[Region]:
    """The distinct boxes in the order of their numbers."""
    distinct = dict.fromkeys(tuple(float(value) for value in box) for box in boxes)
    return [Region(number, (box[0], box[1], box[2], box[3])) for number, box in enumerate(distinct)]


def read_turns(
    conversations: Sequence[dict[str, Any]], boxes: Sequence[Sequence[float]]
) -> tuple[list[Turn], list[str]]:
    """The question-answer pairs with global region numbers, and what was wrong with those left out.

    Args:
        conversations: ``{"from": "human" | "gpt", "value": str}`` in order, as in the data.
        boxes: one ``[x1, y1, x2, y2]`` per ``<mask>`` of the human turns.

    Returns:
        The turns, and one line per irregularity: a question without an answer or the reverse, more mentions
        than boxes, an answer that cites a region which its question does not name, an empty text. Such a pair is
        left out, because it would teach nothing or disagree with the picture; its mentions are counted all the same.
    """
    numbers = mention_numbers(boxes)
    turns: list[Turn] = []
    problems: list[str] = []
    seen = 0
    question: str | None = None
    local: list[int] = []
    for place, message in enumerate(conversations):
        text = str(message["value"])
        if message["from"] == "human":
            if question is not None:
                problems.append(f"message {place}: a question follows a question")
            mentions = len(MENTION.findall(text))
            local = numbers[seen : seen + mentions]
            seen += mentions
            question = rewrite_question(text, local) if len(local) == mentions else None
            if question is None:
                problems.append(f"message {place}: more <mask> tokens than boxes")
            continue
        if question is None:
            problems.append(f"message {place}: an answer without a usable question")
            continue
        answer = rewrite_answer(text, local)
        if answer is None:
            problems.append(f"message {place}: the answer cites a region that its question does not name")
        elif not answer or not question:
            problems.append(f"message {place}: the {'question' if answer else 'answer'} is empty")
        else:
            turns.append(Turn(question, answer))
        question = None
    if question is not None:
        problems.append("the last question has no answer")
    return turns, problems


def rewrite_question(text: str, local: Sequence[int]) -> str:
    """``<mask> <depth>`` to ``Region [g]``; the image token goes, since the chat template places the image."""
    numbers = iter(local)
    named = MENTION.sub(lambda _: f"Region [{next(numbers)}]", text)
    return IMAGE_TOKEN.sub("", named).strip()


def rewrite_answer(text: str, local: Sequence[int]) -> str | None:
    """Turn-local ``Region [N]`` to the global number; None if N counts past the question's mentions."""
    cited = CITATION.findall(text)
    # Python refuses to read a number of thousands of digits.
    if any(len(number) > LONGEST_NUMBER or int(number) >= len(local) for number in cited):
        return None
    return CITATION.sub(lambda match: f"Region [{local[int(match.group(1))]}]", text).strip()
