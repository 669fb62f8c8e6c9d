"""Questions and answers about a scene, in the manner of OpenSpatialDataset, all of them true.

A comparison is asked only when the metric sizes and what the picture shows agree and differ clearly; sizes and
distances are asked only of objects that are seen whole (:class:`~theworld.synthetic.scene.Region`).

- wider, taller: width, height. Bigger: both wider and taller.
- left of, above: the objects' centres, in space and in the picture.
- in front of, closer: along the camera's view, and as the crow flies.
- Distances are between centres; the horizontal one is along the ground (X and Z), the vertical one along Y.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from theworld.synthetic.scene import Region, Scene

MENTION = "<mask> <depth>"
UNITS = {"meters": 1.0, "centimeters": 0.01, "feet": 0.3048, "inches": 0.0254}
SIZE_RATIO = 1.15
DEPTH_RATIO = 1.15
CENTRE_SHIFT = 0.04
"""Least differences that are asked about: of sizes, of distances from the camera, of centres in picture sizes."""


@dataclass(frozen=True)
class Turn:
    """One question and its answer; ``mentions`` are the regions of its ``<mask>`` tokens, in order."""

    question: str
    answer: str
    mentions: tuple[Region, ...]


@dataclass(frozen=True)
class Relation:
    """A comparison of two regions.

    Attributes:
        more, less: ``A is <more> B`` and its contrary.
        most, least: ``Which of the two is <most>?``
        compare: > 0 when ``more`` holds, < 0 when ``less`` does, 0 when it must not be asked.
    """

    more: str
    less: str
    most: str
    least: str
    compare: Callable[[Region, Region, Scene], int]


def _box_size(region: Region) -> tuple[int, int]:
    x0, y0, x1, y1 = region.box
    return x1 - x0, y1 - y0


def _sign(metric: tuple[float, float], seen: tuple[float, float], ratio: float) -> int:
    """Sign of a comparison in which two measures agree, each at least by ``ratio``; else 0."""
    if metric[0] > ratio * metric[1] and seen[0] > ratio * seen[1]:
        return 1
    if metric[1] > ratio * metric[0] and seen[1] > ratio * seen[0]:
        return -1
    return 0


def _wider(a: Region, b: Region, _: Scene) -> int:
    whole = a.whole and b.whole
    return whole * _sign((a.thing.width, b.thing.width), (_box_size(a)[0], _box_size(b)[0]), SIZE_RATIO)


def _taller(a: Region, b: Region, _: Scene) -> int:
    whole = a.whole and b.whole
    return whole * _sign((a.thing.height, b.thing.height), (_box_size(a)[1], _box_size(b)[1]), SIZE_RATIO)


def _bigger(a: Region, b: Region, scene: Scene) -> int:
    wider, taller = _wider(a, b, scene), _taller(a, b, scene)
    return wider if wider == taller else 0


def _shift(metric: float, seen: float, least: float) -> int:
    if abs(seen) < least or metric * seen <= 0:
        return 0
    return 1 if seen > 0 else -1


def _left(a: Region, b: Region, scene: Scene) -> int:
    seen = (b.box[0] + b.box[2] - a.box[0] - a.box[2]) / 2
    return _shift(b.thing.centre[0] - a.thing.centre[0], seen, CENTRE_SHIFT * scene.width)


def _above(a: Region, b: Region, scene: Scene) -> int:
    seen = (b.box[1] + b.box[3] - a.box[1] - a.box[3]) / 2
    return _shift(a.thing.centre[1] - b.thing.centre[1], seen, CENTRE_SHIFT * scene.height)


def _nearer(a: Region, b: Region, scene: Scene) -> int:
    depths, ranges = (a.thing.depth, b.thing.depth), (_range(a, scene), _range(b, scene))
    return -_sign(depths, ranges, DEPTH_RATIO)


def _range(region: Region, scene: Scene) -> float:
    """Distance of an object's centre from the camera, metres."""
    x, y, z = region.thing.centre
    return math.hypot(x, y - scene.camera.height, z)


RELATIONS = (
    Relation("wider than", "narrower than", "wider", "narrower", _wider),
    Relation("taller than", "shorter than", "taller", "shorter", _taller),
    Relation("bigger than", "smaller than", "bigger", "smaller", _bigger),
    Relation("to the left of", "to the right of", "further to the left", "further to the right", _left),
    Relation("above", "below", "higher up", "lower down", _above),
    Relation("in front of", "behind", "closer to the camera", "further from the camera", _nearer),
)


class Talk:
    """Makes the turns of one conversation; each method gives a turn, or None when it would not be true or clear."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self.scene = scene
        self.rng = rng

    def measure(self, metres: float) -> str:
        """A length in one of the units that suit it, with two decimals."""
        fitting = [unit for unit, size in UNITS.items() if 1.0 <= metres / size <= 200] or ["centimeters"]
        unit = self.rng.choice(fitting)
        return f"{metres / UNITS[unit]:.2f} {unit}"

    def name(self, region: Region, definite: bool = False) -> str:
        """``a red ball`` or ``the red ball``; without the colour in a grayscale picture."""
        thing = region.thing
        words = thing.category if self.scene.gray else f"{thing.colour} {thing.category}"
        if definite:
            return f"the {words}"
        return f"an {words}" if words[0] in "aeiou" else f"a {words}"

    def _related(self, a: Region, b: Region) -> tuple[Relation, int] | None:
        relation = self.rng.choice(RELATIONS)
        sign = relation.compare(a, b, self.scene)
        return (relation, sign) if sign else None

    def yes_or_no(self, a: Region, b: Region) -> Turn | None:
        """Is A wider than B?"""
        found = self._related(a, b)
        if found is None:
            return None
        relation, sign = found
        true, false = (relation.more, relation.less) if sign > 0 else (relation.less, relation.more)
        asked = self.rng.choice((true, false))
        question = self.rng.choice(
            (
                f"Is {MENTION} {asked} {MENTION}?",
                f"Can you tell whether {MENTION} is {asked} {MENTION}?",
                f"Would you say that {MENTION} is {asked} {MENTION}?",
            )
        )
        fact = f"Region [0] is {true} Region [1]."
        if asked == true:
            answer = self.rng.choice((f"Yes, {fact}", f"Indeed, {fact}", "Yes, it is."))
        else:
            answer = self.rng.choice((f"No, {fact}", f"In fact, {fact}", "No, it is not."))
        return Turn(question, answer, (a, b))

    def which(self, a: Region, b: Region) -> Turn | None:
        """Which of the two is wider?"""
        found = self._related(a, b)
        if found is None:
            return None
        relation, sign = found
        asked = self.rng.choice((relation.most, relation.least))
        answer = 0 if (sign > 0) == (asked == relation.most) else 1
        question = self.rng.choice(
            (
                f"Which of these two is {asked}, {MENTION} or {MENTION}?",
                f"Between {MENTION} and {MENTION}, which one is {asked}?",
            )
        )
        return Turn(question, self.rng.choice((f"Region [{answer}] is {asked}.", f"Region [{answer}].")), (a, b))

    def role(self, a: Region, b: Region) -> Turn | None:
        """A question that names the objects and the asker's part."""
        above, nearer = _above(a, b, self.scene), _nearer(a, b, self.scene)
        seen = f"{self.name(a)} represented by {MENTION} and {self.name(b)} represented by {MENTION}"
        if above and self.rng.random() < 0.5:
            high = 0 if above > 0 else 1
            name = self.name((a, b)[high], definite=True)
            question = f"You are hanging up a string of lights and see {seen}. Which one is higher in elevation?"
            return Turn(question, f"{name.capitalize()} represented by Region [{high}] is higher in elevation.", (a, b))
        if nearer:
            near = 0 if nearer > 0 else 1
            name = self.name((a, b)[near], definite=True)
            question = f"You are holding the camera and see {seen}. Which one would you reach first?"
            return Turn(question, f"You would reach {name} represented by Region [{near}] first.", (a, b))
        return None

    def distance(self, a: Region, b: Region) -> Turn | None:
        """How far apart are A and B, straight, vertically or along the ground?"""
        if not (a.whole and b.whole):
            return None
        x, y, z = (abs(p - q) for p, q in zip(a.thing.centre, b.thing.centre, strict=True))
        kind, metres = self.rng.choice(
            (("vertical", y), ("horizontal", math.hypot(x, z)), ("direct", math.hypot(x, y, z)))
        )
        if metres < 0.06 * self.scene.camera.height:
            return None
        length = self.measure(metres)
        if kind == "direct":
            questions = (
                f"How far apart are {MENTION} and {MENTION}?",
                f"How long is a straight line from the center of {MENTION} to the center of {MENTION}?",
            )
            answers = (f"Region [0] and Region [1] are {length} apart.", f"It is {length}.")
        else:
            questions = (
                f"What is the {kind} distance between {MENTION} and {MENTION}?",
                f"How far is {MENTION} from {MENTION} {kind}ly?",
            )
            answers = (f"Region [0] is {length} away from Region [1] {kind}ly.", f"They are {length} apart {kind}ly.")
        return Turn(self.rng.choice(questions), self.rng.choice(answers), (a, b))

    def difference(self, a: Region, b: Region) -> Turn | None:
        """How much wider or taller is one than the other?"""
        relation, attribute = self.rng.choice(((RELATIONS[0], "width"), (RELATIONS[1], "height")))
        sign = relation.compare(a, b, self.scene)
        if not sign:
            return None
        word = relation.more if sign > 0 else relation.less
        length = self.measure(abs(getattr(a.thing, attribute) - getattr(b.thing, attribute)))
        question = f"How much {word.replace(' than', '')} is {MENTION} than {MENTION}?"
        return Turn(question, f"Region [0] is {length} {word} Region [1].", (a, b))

    def shelf(self, a: Region) -> Turn | None:
        """Two mentions of ONE region; the answer cites the first only."""
        if not a.whole:
            return None
        unit = self.rng.choice(("feet", "meters") if a.thing.height > 0.6 else ("inches", "centimeters"))
        height = a.thing.height / UNITS[unit]
        limit = round(height * self.rng.choice((0.6, 0.75, 0.85, 1.2, 1.35, 1.5)), 1)
        if abs(limit - height) < 0.08 * height:
            return None
        question = (
            f"You are moving house and {MENTION} is to go under a shelf that is {limit} {unit} high. "
            f"Would {MENTION} fit under it?"
        )
        size = f"Region [0] is {height:.2f} {unit} in height"
        fits = height < limit
        answer = (
            f"Yes, {size}, so it is lower than the shelf." if fits else f"No, {size}, so it is taller than the shelf."
        )
        return Turn(question, answer, (a, a))

    def size(self, a: Region) -> Turn | None:
        """How wide or tall is one object? One mention."""
        if not a.whole:
            return None
        attribute, adjective = self.rng.choice((("width", "wide"), ("height", "tall")))
        length = self.measure(getattr(a.thing, attribute))
        question = self.rng.choice(
            (f"How big is {MENTION} in terms of {attribute}?", f"What is the {attribute} of {MENTION}?")
        )
        answer = self.rng.choice((f"It is {length}.", f"Region [0] is {length} {adjective}."))
        return Turn(question, answer, (a,))

    def range(self, a: Region) -> Turn | None:
        """How far is one object from the camera? One mention."""
        if not a.whole:
            return None
        length = self.measure(_range(a, self.scene))
        return Turn(f"How far is {MENTION} from the camera?", f"Region [0] is {length} from the camera.", (a,))

    def picture(self) -> Turn:
        """A question with no mention."""
        if self.rng.random() < 0.5:
            wide = self.scene.width > self.scene.height
            answer = "Yes, it is wider than it is tall." if wide else "No, it is taller than it is wide."
            return Turn("Is this picture wider than it is tall?", answer, ())
        answer = "Yes, it is in black and white." if self.scene.gray else "No, it is in color."
        return Turn("Is this picture in black and white?", answer, ())


def converse(scene: Scene, rng: random.Random) -> list[Turn]:
    """About 10 turns with 17 to 20 mentions of some 5 to 8 regions."""
    whole = [region for region in scene.regions if region.whole]
    cut = [region for region in scene.regions if not region.whole]
    pool = rng.sample(whole, min(len(whole), rng.randint(4, 6))) + rng.sample(cut, min(len(cut), 2))
    talk = Talk(scene, rng)
    asked: set[tuple[str, tuple[int, ...]]] = set()
    turns = [_ask(talk, pool, mentions, asked) for mentions in _plan(rng)]
    rng.shuffle(turns)
    return [_irregular(turn, rng) for turn in turns]


def _plan(rng: random.Random) -> list[int]:
    """How many mentions each turn makes."""
    pairs = rng.choice([10] * 18 + [9, 11])
    total = rng.randint(17, min(20, 2 * pairs))
    plan = [2] * pairs
    while sum(plan) > total:
        spare = sum(plan) - total
        turn = plan.index(2)
        plan[turn] = 0 if spare >= 2 and rng.random() < 0.25 and 0 not in plan else 1
    return plan


def _ask(talk: Talk, pool: list[Region], mentions: int, asked: set[tuple[str, tuple[int, ...]]]) -> Turn:
    """A turn with that many mentions that has not been asked yet."""
    if mentions == 0:
        return talk.picture()
    rng = talk.rng
    pairs: tuple[Callable[[Region, Region], Turn | None], ...] = (
        *(talk.yes_or_no,) * 3, *(talk.which,) * 2, talk.role, *(talk.distance,) * 2, talk.difference,
    )  # fmt: skip
    singles: tuple[Callable[[Region], Turn | None], ...] = (talk.size, talk.size, talk.range)
    while True:
        if mentions == 1:
            turn = rng.choice(singles)(rng.choice(pool))
        elif rng.random() < 0.08:
            turn = talk.shelf(rng.choice(pool))
        else:
            turn = rng.choice(pairs)(*rng.sample(pool, 2))
        if turn is None:
            continue
        key = (turn.question, tuple(region.index for region in turn.mentions))
        if key not in asked:
            asked.add(key)
            return turn


def _irregular(turn: Turn, rng: random.Random) -> Turn:
    """Now and then a trailing space, as in the real data."""
    question = turn.question + " " * (rng.random() < 0.06)
    answer = turn.answer + " " * (rng.random() < 0.03)
    return Turn(question, answer, turn.mentions)
