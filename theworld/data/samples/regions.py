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
IMAGE = "<image>"
"""In the questions of a sample with several pictures: where the next one stands."""
IMAGE_TOKEN = re.compile(r"<image>\n?")


@dataclass(frozen=True)
class Region:
    """A distinct box. ``number`` is what text and picture call it; ``box`` is (x1, y1, x2, y2) in pixels as in the
    data: it may exceed the image or be inverted; ``picture`` is the place of its picture among the sample's."""

    number: int
    box: tuple[float, float, float, float]
    picture: int = 0


@dataclass(frozen=True)
class Turn:
    """A question and its answer, regions named by their global numbers."""

    question: str
    answer: str


def mention_numbers(boxes: Sequence[Sequence[float]], owners: Sequence[int] = ()) -> list[int]:
    """The global number of each mention: identical boxes of a picture are one region, numbered by first appearance.

    Args:
        boxes: one for each mention.
        owners: the picture that each is of; none: all are of the first.
    """
    numbers: dict[tuple[float, ...], int] = {}
    return [numbers.setdefault((owner, *box), len(numbers)) for owner, box in owned(boxes, owners)]


def unique_regions(boxes: Sequence[Sequence[float]], owners: Sequence[int] = ()) -> list[Region]:
    """The distinct boxes in the order of their numbers; ``owners`` as of :func:`mention_numbers`."""
    distinct = dict.fromkeys((owner, *(float(value) for value in box)) for owner, box in owned(boxes, owners))
    return [Region(number, (one[1], one[2], one[3], one[4]), int(one[0])) for number, one in enumerate(distinct)]


def owned(boxes: Sequence[Sequence[float]], owners: Sequence[int]) -> list[tuple[int, Sequence[float]]]:
    """Each box with the picture that it is of."""
    return list(zip(owners or [0] * len(boxes), boxes, strict=True))


def read_turns(
    conversations: Sequence[dict[str, Any]],
    boxes: Sequence[Sequence[float]],
    owners: Sequence[int] = (),
    pictures: int = 1,
) -> tuple[list[Turn], list[str]]:
    """The question-answer pairs with global region numbers, and what was wrong with those left out.

    Args:
        conversations: ``{"from": "human" | "gpt", "value": str}`` in order, as in the data.
        boxes: one ``[x1, y1, x2, y2]`` per ``<mask>`` of the human turns.
        owners: the picture of each box; none: all are of the first.
        pictures: of the sample; in the questions of one with several, :data:`IMAGE` stands for each of them.

    Returns:
        The turns, and one line per irregularity: a question without an answer or the reverse, more mentions
        than boxes, an answer that cites a region which its question does not name, an empty text. Such a pair is
        left out, because it would teach nothing or disagree with the picture; its mentions are counted all the same.
    """
    numbers = mention_numbers(boxes, owners)
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
            question = rewrite_question(text, local, pictures > 1) if len(local) == mentions else None
            if question is None:
                problems.append(f"message {place}: more <mask> tokens than boxes")
            continue
        if question is None:
            problems.append(f"message {place}: an answer without a usable question")
            continue
        answer = rewrite_answer(text, local)
        if answer is None:
            problems.append(f"message {place}: the answer cites a region that its question does not name")
        elif not answer or not IMAGE_TOKEN.sub("", question):
            problems.append(f"message {place}: the {'question' if answer else 'answer'} is empty")
        else:
            turns.append(Turn(question, answer))
        question = None
    if question is not None:
        problems.append("the last question has no answer")
    return place_images(turns, pictures), problems


def images_in(turns: Sequence[Turn]) -> int:
    """Pictures that stand in questions as :data:`IMAGE`."""
    return sum(turn.question.count(IMAGE) for turn in turns)


def place_images(turns: list[Turn], pictures: int) -> list[Turn]:
    """Turns in whose questions :data:`IMAGE` stands for each of several pictures, in their order: where the data has
    put it, or, unless there are just as many, all in front of the first question. Of one picture or none: as they
    are."""
    if pictures < 2 or not turns or images_in(turns) == pictures:
        return turns
    first, *others = [Turn(IMAGE_TOKEN.sub("", turn.question).strip(), turn.answer) for turn in turns]
    return [Turn(IMAGE * pictures + first.question, first.answer), *others]


def question_alone(turns: Sequence[Turn], place: int, pictures: int) -> tuple[str, int]:
    """The question of one turn of a sample as the only one, and the number of pictures that it is asked with.

    Args:
        turns: of the sample, as :func:`read_turns` gives them.
        place: of the turn.
        pictures: of the sample. Of several those count that training has shown up to this turn: those of earlier turns
            stand in front then, its own where they are.
    """
    question = turns[place].question
    if pictures < 2:
        return question, pictures
    earlier = images_in(turns[:place])
    shown = earlier + images_in(turns[place : place + 1])
    return IMAGE * earlier + question if shown > 1 else IMAGE_TOKEN.sub("", question).strip(), shown


def rewrite_question(text: str, local: Sequence[int], keeps_images: bool = False) -> str:
    """``<mask> <depth>`` to ``Region [g]``; the image token goes, since the chat template places the image, unless
    there are several."""
    numbers = iter(local)
    named = MENTION.sub(lambda _: f"Region [{next(numbers)}]", text)
    return named.strip() if keeps_images else IMAGE_TOKEN.sub("", named).strip()


def rewrite_answer(text: str, local: Sequence[int]) -> str | None:
    """Turn-local ``Region [N]`` to the global number; None if N counts past the question's mentions."""
    cited = CITATION.findall(text)
    # Python refuses to read a number of thousands of digits.
    if any(len(number) > LONGEST_NUMBER or int(number) >= len(local) for number in cited):
        return None
    return CITATION.sub(lambda match: f"Region [{local[int(match.group(1))]}]", text).strip()
