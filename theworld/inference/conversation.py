"""Pictures, the first with boxes, and questions about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageOps

from theworld.data.samples.boxes import draw_regions
from theworld.data.samples.decode import is_outside, to_rgb
from theworld.data.samples.regions import (
    CITATION,
    IMAGE,
    IMAGE_TOKEN,
    LONGEST_NUMBER,
    MENTION,
    Region,
    Turn,
    rewrite_question,
    unique_regions,
)
from theworld.errors import UserError, describe
from theworld.inference.answering import Answerer, Asked, Past

Box = tuple[float, float, float, float]


def parse_box(text: str) -> Box:
    """``x1,y1,x2,y2`` in pixels of the picture.

    Raises:
        UserError: it is no box.
    """
    try:
        x1, y1, x2, y2 = (float(side) for side in text.split(","))
    except ValueError as error:
        raise UserError(f"--box {text}: expected x1,y1,x2,y2 in pixels") from error
    return x1, y1, x2, y2


def open_picture(path: Path) -> Image.Image:
    """A picture in RGB, turned as its EXIF says.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as a picture ({describe(error)})") from error


@dataclass
class Conversation:
    """Turns about one picture, or several.

    Args:
        pictures: RGB.
        boxes: in pixels of the first, whose regions they are as in training; the same box twice is one region.
        draws_boxes: whether the model was trained on pictures with their boxes in them.
    """

    pictures: Sequence[Image.Image]
    boxes: Sequence[Box] = ()
    draws_boxes: bool = True
    turns: list[Turn] = field(default_factory=list)
    past: Past = field(default_factory=Past)

    def forget(self) -> None:
        """Begin anew about the same pictures."""
        self.turns, self.past = [], Past()

    def add_box(self, box: Box) -> None:
        """One more region. What was said before was about a picture without it, so it is forgotten.

        Raises:
            UserError: it lies outside the picture.
        """
        before = self.boxes
        self.boxes = [*before, box]
        try:
            _ = self.regions
        except UserError:
            self.boxes = before
            raise
        self.forget()

    def take_picture(self, picture: Image.Image) -> None:
        """Go on about another picture, without boxes."""
        self.pictures, self.boxes = [picture], []
        self.forget()

    def add_picture(self, picture: Image.Image) -> None:
        """One more picture. What was said before was said without it, so it is forgotten."""
        self.pictures = [*self.pictures, picture]
        self.forget()

    def with_other(self, draws_boxes: bool) -> Conversation:
        """The same turns but the last, for another model to go on from."""
        return Conversation(self.pictures, self.boxes, draws_boxes, self.turns[:-1])

    @property
    def regions(self) -> list[Region]:
        """The distinct boxes with their numbers.

        Raises:
            UserError: one lies outside the picture.
        """
        regions, first = unique_regions(self.boxes), self.pictures[0]
        for region in regions:
            if not all(abs(side) < float("inf") for side in region.box) or is_outside(region, first.size):
                box = ",".join(f"{side:g}" for side in region.box)
                size = f"{first.width} x {first.height}"
                raise UserError(f"--box {box}: lies outside the picture, which is {size} pixels")
        return regions

    def seen(self) -> tuple[Image.Image, ...]:
        """The pictures as the model sees them, by the code that draws in training."""
        first, *others = self.pictures
        return draw_regions(first, self.regions) if self.draws_boxes else first, *others

    def question(self, text: str) -> str:
        """A question as in training: each ``<mask>`` in turn is the region of the next box. Of several pictures each
        stays where the first question has an ``<image>``; else all stand in front of it.

        Raises:
            UserError: it names a region that has no box, has places for another number of pictures, or is empty.
        """
        self.check_places(text)
        count, mentions = len(self.regions), len(MENTION.findall(text))
        if mentions > count:
            raise UserError(f"the question has {mentions} <mask>, but there are {count} boxes")
        named = rewrite_question(text, range(mentions), len(self.pictures) > 1)
        if not IMAGE_TOKEN.sub("", named):
            raise UserError("the question is empty")
        for number in CITATION.findall(named):
            if len(number) > LONGEST_NUMBER or int(number) >= count:
                raise UserError(f"the question names Region [{number[:LONGEST_NUMBER]}], but there are {count} boxes")
        return named

    def check_places(self, text: str) -> None:
        """A question has an ``<image>`` for each picture, or none; of several pictures only the first one has any.

        Raises:
            UserError: it has others.
        """
        places, pictures = text.count(IMAGE), len(self.pictures)
        if places and pictures > 1 and self.turns:
            raise UserError("the question has an <image>, but the pictures stand in the first question already")
        if places not in (0, pictures):
            raise UserError(f"the question has {places} <image>, but the number of pictures is {pictures}")

    def ask(self, answerer: Answerer, text: str, streamer: object = None) -> str:
        """The answer, which becomes part of the conversation."""
        question = self.question(text)
        asked = Asked(self.seen(), question, before=tuple(self.turns))
        answer = answerer.answer_turn(asked, self.past, streamer)
        self.turns.append(Turn(question, answer))
        return answer
