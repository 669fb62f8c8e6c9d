"""Every answer is read as text and checked against what can be measured in the masks, the camera and the depths."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from theworld.synthetic import Sample, describe

SEED, SAMPLES, SIZE = 3, 120, 320
MENTION = "<mask> <depth>"
METRES = {"meters": 1.0, "centimeters": 0.01, "feet": 0.3048, "inches": 0.0254}
LENGTH = r"(?P<number>\d+\.\d\d) (?P<unit>meters|centimeters|feet|inches)"


@dataclass
class Seen:
    """A mentioned object, measured: its mask gives pixels, its depth and the camera turn them into metres."""

    name: str
    depth: float
    x: float
    y: float
    wide: float
    tall: float
    pixel_x: float
    pixel_y: float
    pixel_wide: int
    pixel_tall: int
    to_camera: float
    whole_x: float
    whole_y: float


def measure(sample: Sample, mention: int, rle: Any) -> Seen:
    """Measure the visible pixels of one mention."""
    camera, thing = sample.scene.camera, sample.mentions[mention].thing
    mask = coco_mask.decode(rle)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    scale = thing.depth / camera.focal
    x = ((left + right) / 2 - camera.centre_x) * scale
    y = camera.height - ((top + bottom) / 2 - camera.horizon) * scale
    return Seen(
        name=thing.category if sample.scene.gray else f"{thing.colour} {thing.category}",
        depth=thing.depth,
        x=x,
        y=y,
        wide=(right - left) * scale,
        tall=(bottom - top) * scale,
        pixel_x=(left + right) / 2,
        pixel_y=(top + bottom) / 2,
        pixel_wide=right - left,
        pixel_tall=bottom - top,
        to_camera=math.hypot(thing.centre[0], thing.centre[1] - camera.height, thing.depth),
        whole_x=thing.centre[0],
        whole_y=thing.centre[1],
    )


def wider(a: Seen, b: Seen) -> bool:
    return a.wide > 1.1 * b.wide and a.pixel_wide > b.pixel_wide


def taller(a: Seen, b: Seen) -> bool:
    return a.tall > 1.1 * b.tall and a.pixel_tall > b.pixel_tall


def left(a: Seen, b: Seen) -> bool:
    return a.whole_x < b.whole_x and a.pixel_x < b.pixel_x


def above(a: Seen, b: Seen) -> bool:
    return a.whole_y > b.whole_y and a.pixel_y < b.pixel_y


def nearer(a: Seen, b: Seen) -> bool:
    return 1.1 * a.depth < b.depth and 1.05 * a.to_camera < b.to_camera


def reverse(holds: Callable[[Seen, Seen], bool]) -> Callable[[Seen, Seen], bool]:
    return lambda a, b: holds(b, a)


COMPARISONS: dict[str, Callable[[Seen, Seen], bool]] = {
    "wider than": wider,
    "taller than": taller,
    "bigger than": lambda a, b: wider(a, b) and taller(a, b),
    "to the left of": left,
    "above": above,
    "in front of": nearer,
}
CONTRARY = {
    "narrower than": "wider than",
    "shorter than": "taller than",
    "smaller than": "bigger than",
    "to the right of": "to the left of",
    "below": "above",
    "behind": "in front of",
}
COMPARISONS |= {word: reverse(COMPARISONS[other]) for word, other in CONTRARY.items()}
SUPERLATIVES = {
    "wider": "wider than",
    "narrower": "narrower than",
    "taller": "taller than",
    "shorter": "shorter than",
    "bigger": "bigger than",
    "smaller": "smaller than",
    "further to the left": "to the left of",
    "further to the right": "to the right of",
    "higher up": "above",
    "lower down": "below",
    "closer to the camera": "in front of",
    "further from the camera": "behind",
}
WORD = "|".join(COMPARISONS)
MOST = "|".join(SUPERLATIVES)


def is_length(match: re.Match[str], metres: float) -> bool:
    """Whether the length that the answer names is that one, as far as its two decimals go."""
    unit = METRES[match["unit"]]
    return abs(float(match["number"]) * unit - metres) <= 0.00501 * unit


def yes_or_no(sample: Sample, question: str, answer: str, seen: list[Seen]) -> bool | None:
    asked = re.search(rf"(?:Is|whether|that) {MENTION} (?:is )?({WORD}) {MENTION}\?$", question)
    if asked is None:
        return None
    said = re.fullmatch(
        rf"(Yes|No|Indeed|In fact), (?:it is|it is not|Region \[0\] is ({WORD}) Region \[1\])\.", answer
    )
    assert said is not None, answer
    affirmed = said[1] in ("Yes", "Indeed")
    if said[2] is None:
        assert affirmed == (answer == "Yes, it is.")
    word = asked[1] if affirmed else {**CONTRARY, **{b: a for a, b in CONTRARY.items()}}[asked[1]]
    assert said[2] in (None, word)
    return COMPARISONS[word](*seen)


def which(sample: Sample, question: str, answer: str, seen: list[Seen]) -> bool | None:
    asked = re.fullmatch(rf"Which of these two is ({MOST}), {MENTION} or {MENTION}\?", question) or re.fullmatch(
        rf"Between {MENTION} and {MENTION}, which one is ({MOST})\?", question
    )
    if asked is None:
        return None
    said = re.fullmatch(rf"Region \[([01])\](?: is ({MOST}))?\.", answer)
    assert said is not None, answer
    assert said[2] in (None, asked[1])
    chosen = int(said[1])
    return COMPARISONS[SUPERLATIVES[asked[1]]](seen[chosen], seen[1 - chosen])


def role(sample: Sample, question: str, answer: str, seen: list[Seen]) -> bool | None:
    asked = re.search(rf" see an? (.*) represented by {MENTION} and an? (.*) represented by {MENTION}\.", question)
    if asked is None:
        return None
    assert [asked[1], asked[2]] == [a.name for a in seen]
    said = re.search(r"[Tt]he (.*) represented by Region \[([01])\] (is higher|first)", answer)
    assert said is not None, answer
    chosen = int(said[2])
    assert said[1] == seen[chosen].name
    return (above if said[3] == "is higher" else nearer)(seen[chosen], seen[1 - chosen])


def distance(sample: Sample, question: str, answer: str, seen: list[Seen]) -> bool | None:
    if not re.search(r"distance between|from <mask> <depth> \w+ly|How far apart|straight line", question):
        return None
    a, b = seen
    apart = {
        "vertical": abs(a.y - b.y),
        "horizontal": math.hypot(a.x - b.x, a.depth - b.depth),
        "direct": math.hypot(a.x - b.x, a.y - b.y, a.depth - b.depth),
    }
    kinds = [kind for kind in ("vertical", "horizontal") if kind in question] or ["direct"]
    said = re.search(LENGTH, answer)
    assert said is not None, answer
    assert ("ly" in answer) == (kinds[0] != "direct")
    assert kinds[0] == "direct" or f"{kinds[0]}ly" in answer
    return is_length(said, apart[kinds[0]])


def difference(sample: Sample, question: str, answer: str, seen: list[Seen]) -> bool | None:
    asked = re.fullmatch(rf"How much (wider|narrower|taller|shorter) is {MENTION} than {MENTION}\?", question)
    if asked is None:
        return None
    said = re.fullmatch(rf"Region \[0\] is {LENGTH} {asked[1]} than Region \[1\]\.", answer)
    assert said is not None, answer
    gap = (seen[0].wide - seen[1].wide) if asked[1] in ("wider", "narrower") else (seen[0].tall - seen[1].tall)
    return is_length(said, gap if asked[1] in ("wider", "taller") else -gap)


def shelf(sample: Sample, question: str, answer: str, seen: list[Seen]) -> bool | None:
    asked = re.search(r"a shelf that is (\d+\.\d) (\w+) high", question)
    if asked is None:
        return None
    assert seen[0] == seen[1], "both mentions are one object"
    said = re.fullmatch(
        rf"(Yes|No), Region \[0\] is {LENGTH} in height, so it is (lower|taller) than the shelf\.", answer
    )
    assert said is not None, answer
    fits = seen[0].tall < float(asked[1]) * METRES[asked[2]]
    return is_length(said, seen[0].tall) and (said[1] == "Yes") == fits == (said[4] == "lower")


def size(sample: Sample, question: str, answer: str, seen: list[Seen]) -> bool | None:
    asked = re.search(r"in terms of (width|height)\?$|^What is the (width|height) of ", question)
    if asked is None:
        return None
    attribute = asked[1] or asked[2]
    said = re.fullmatch(rf"(?:It is|Region \[0\] is) {LENGTH}(?: (wide|tall))?\.", answer)
    assert said is not None, answer
    assert said[3] in (None, {"width": "wide", "height": "tall"}[attribute])
    return is_length(said, seen[0].wide if attribute == "width" else seen[0].tall)


def to_camera(sample: Sample, question: str, answer: str, seen: list[Seen]) -> bool | None:
    if question != f"How far is {MENTION} from the camera?":
        return None
    said = re.fullmatch(rf"Region \[0\] is {LENGTH} from the camera\.", answer)
    assert said is not None, answer
    return is_length(said, seen[0].to_camera)


def picture(sample: Sample, question: str, answer: str, seen: list[Seen]) -> bool | None:
    if question == "Is this picture wider than it is tall?":
        return answer.startswith("Yes") == (sample.scene.width > sample.scene.height)
    if question == "Is this picture in black and white?":
        return answer.startswith("Yes") == sample.scene.gray
    return None


CHECKS = (yes_or_no, which, role, distance, difference, shelf, size, to_camera, picture)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [describe(SEED, index, SIZE) for index in range(SAMPLES)]


def test_every_answer_is_true(samples: list[Sample]) -> None:
    kinds: Counter[str] = Counter()
    for sample in samples:
        entry = sample.entry()
        talk, rles = entry["conversations"], entry["rle"]
        mention = 0
        for human, gpt in zip(talk[::2], talk[1::2], strict=True):
            question, answer = human["value"].removeprefix("<image>\n").strip(), gpt["value"].strip()
            count = question.count("<mask>")
            seen = [measure(sample, k, rles[k]) for k in range(mention, mention + count)]
            mention += count
            verdicts = {check.__name__: check(sample, question, answer, seen) for check in CHECKS}
            (kind,) = [name for name, verdict in verdicts.items() if verdict is not None]
            assert verdicts[kind], f"sample {sample.index}: {question!r} {answer!r}"
            kinds[kind] += 1
    assert set(kinds) == {check.__name__ for check in CHECKS}
    assert min(kinds.values()) >= 10


def test_both_answers_to_a_yes_or_no_question_are_common(samples: list[Sample]) -> None:
    """A model must not learn that the answer is always yes, or always the first region."""
    answers = [turn.answer for sample in samples for turn in sample.turns]
    yes = sum(answer.startswith(("Yes", "Indeed")) for answer in answers)
    no = sum(answer.startswith(("No", "In fact")) for answer in answers)
    assert 0.7 < yes / no < 1.4
    first, second = (sum(answer.startswith(f"Region [{k}].") for answer in answers) for k in (0, 1))
    assert 0.5 < first / second < 2


def test_nearer_objects_hide_farther_ones(samples: list[Sample]) -> None:
    overlapping = 0
    for sample in samples[:40]:
        scene = sample.scene
        nearest = np.full((scene.height, scene.width), np.inf)
        expected = np.zeros_like(scene.labels)
        for number, thing in enumerate(scene.things, start=1):
            rows, columns = np.nonzero(thing.silhouette)
            rows, columns = rows + thing.box[1], columns + thing.box[0]
            inside = (rows >= 0) & (rows < scene.height) & (columns >= 0) & (columns < scene.width)
            rows, columns = rows[inside], columns[inside]
            overlapping += int(np.isfinite(nearest[rows, columns]).sum())
            front = nearest[rows, columns] > thing.depth
            nearest[rows[front], columns[front]] = thing.depth
            expected[rows[front], columns[front]] = number
        np.testing.assert_array_equal(scene.labels, expected)
    assert overlapping > 0


def test_standing_objects_stand_on_the_ground(samples: list[Sample]) -> None:
    for sample in samples:
        for thing in sample.scene.things:
            lowest = thing.centre[1] - thing.height / 2
            assert thing.hanging or lowest == pytest.approx(0.0, abs=1e-9)


def test_masks_of_whole_objects_measure_what_the_geometry_says(samples: list[Sample]) -> None:
    whole = 0
    for sample in samples[:40]:
        for mention, (region, rle) in enumerate(zip(sample.mentions, sample.entry()["rle"], strict=True)):
            seen, thing = measure(sample, mention, rle), region.thing
            if region.whole:
                whole += 1
                measured = (seen.x, seen.y, seen.wide, seen.tall)
                assert measured == pytest.approx((*thing.centre[:2], thing.width, thing.height))
    assert whole > 100
