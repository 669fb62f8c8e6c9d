"""What a chat template puts around questions and answers: found once, so that no turn has to be rendered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from theworld.data.samples import Turn

Pieces = tuple[str, str, str]
"""The text up to a turn's answer, the answer with the token that ends it, and what follows it."""
QUESTION, ANSWER = "The question 7?", "The answer 8."
TRIED = (
    "",
    " spaces ",
    "\n\nlines\n",
    "\ttab\u00a0",
    "{{ 1 + 1 }} {% raw %}",
    "\u2028<b> & 'quoted' \"twice\"",
    "\u3000\u4e00\x1c",
)


@dataclass(frozen=True)
class Frame:
    """A turn's text without question and answer.

    Attributes:
        before: what stands in front of the question.
        between: from the question to the answer.
        end: the token that ends the answer.
        after: what follows it.
        trims: whether the template cuts white space off both ends of a text, as Gemma's does.
    """

    before: str
    between: str
    end: str
    after: str
    trims: bool

    def behind(self, turn: Turn) -> Pieces:
        """The turn's pieces, the first of them without :attr:`before`."""
        question, answer = (turn.question.strip(), turn.answer.strip()) if self.trims else (turn.question, turn.answer)
        return question + self.between, answer + self.end, self.after


def find_frame(render: Callable[[Turn], Pieces]) -> Frame | None:
    """The frame of a template, or None if it does more than to put something around the texts.

    Args:
        render: a turn's pieces by the template itself.
    """
    prompt, answer, after = render(Turn(QUESTION, ANSWER))
    if prompt.count(QUESTION) != 1 or not answer.startswith(ANSWER):
        return None
    before, _, between = prompt.partition(QUESTION)
    tried = [Turn(one, other) for one in TRIED for other in (ANSWER, one)]
    rendered = [render(turn) for turn in tried]
    for trims in (True, False):
        frame = Frame(before, between, answer.removeprefix(ANSWER), after, trims)
        if all(_whole(frame, turn) == pieces for turn, pieces in zip(tried, rendered, strict=True)):
            return frame
    return None


def _whole(frame: Frame, turn: Turn) -> Pieces:
    prompt, answer, after = frame.behind(turn)
    return frame.before + prompt, answer, after
