"""Pictures of the built-in sample with two regions drawn, and what is true of the two."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from theworld.data.samples.boxes import draw_into
from theworld.data.samples.decode import decode_image
from theworld.data.samples.regions import Region as Drawn
from theworld.synthetic import describe
from theworld.synthetic.dialogue import RELATIONS, Relation
from theworld.synthetic.scene import Region, Scene

TASKS = {"left": "to the left of", "nearer": "in front of", "bigger": "bigger than"}
"""Name of a task -> what is or is not true of Region [0] with respect to Region [1], as the sample's questions say."""


@dataclass(frozen=True)
class RegionPair:
    """A picture with the boxes and labels of Region [0] and Region [1], as training draws them."""

    picture: np.ndarray
    """(H, W, 3) uint8."""
    truths: dict[str, bool]
    """Task -> whether it is true of Region [0]."""


def region_pairs(seed: int, size: int) -> Iterator[RegionPair]:
    """One pair of each scene of a sample without end, of those scenes that have one of which all tasks may be asked.

    Args:
        seed: of the sample and of the choice of pairs.
        size: longest side of the pictures, pixels.
    """
    for index in itertools.count():
        sample = describe(seed, index, size)
        pair = choose_pair(sample.scene, random.Random(f"{seed}/{index}/probe"))
        if pair is None:
            continue
        picture, fault = decode_image(sample.jpeg(), (sample.scene.width, sample.scene.height))
        assert fault is None, fault
        draw_into(picture, [drawn_region(number, region) for number, region in enumerate(pair)])
        yield RegionPair(picture, {task: sign > 0 for task, sign in signs_of(*pair, sample.scene).items()})


def choose_pair(scene: Scene, rng: random.Random) -> tuple[Region, Region] | None:
    """A random pair that no task finds too much alike; either is as likely to be the first."""
    pairs = list(itertools.permutations(scene.regions, 2))
    rng.shuffle(pairs)
    return next((pair for pair in pairs if all(signs_of(*pair, scene).values())), None)


def signs_of(first: Region, second: Region, scene: Scene) -> dict[str, int]:
    """Task -> 1 where it is true of the first region, -1 where the contrary is, 0 where they are too much alike."""
    return {task: relation_of(task).compare(first, second, scene) for task in TASKS}


def relation_of(task: str) -> Relation:
    """The sample's own comparison behind a task."""
    return next(relation for relation in RELATIONS if relation.more == TASKS[task])


def drawn_region(number: int, region: Region) -> Drawn:
    """A region under its number."""
    left, top, right, bottom = (float(side) for side in region.box)
    return Drawn(number, (left, top, right, bottom))
