"""A scene: a pinhole camera, a ground plane, and upright objects that face the camera.

Conventions (the questions and the tests rely on them):

- Metres; X to the right, Y up from the ground, Z away from the camera; the camera looks along Z at
  ``Camera.height`` above the ground, so a point is seen at ``x = centre_x + focal * X / Z`` and
  ``y = horizon + focal * (height - Y) / Z`` (pixel edges: pixel k spans k to k + 1).
- An object is a flat cutout at one depth Z. Its width, height and centre follow from the silhouette's pixels, so
  they are exact for what is drawn. Standing objects touch the ground at their lowest pixel.
- Nearer objects are painted over farther ones.
- Masks and boxes describe the VISIBLE part of an object, within the picture; width, height and centre describe the
  whole object. ``Region.whole`` says that both are the same: not cut by the border, hardly covered.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np

from theworld.synthetic.shapes import CATEGORIES, Category, silhouette

Box = tuple[int, int, int, int]
"""``(x0, y0, x1, y1)`` in pixels, x1 and y1 exclusive."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (200, 35, 35),
    "orange": (235, 125, 25),
    "yellow": (230, 205, 50),
    "green": (45, 150, 55),
    "blue": (40, 75, 200),
    "purple": (125, 50, 165),
    "pink": (240, 140, 185),
    "brown": (115, 70, 35),
    "white": (235, 235, 230),
    "black": (35, 35, 38),
}
_GRAY_COLOURS = ("white", "black", "brown", "yellow")
"""Those that stand out from the ground in a grayscale picture."""
KINDS = ("table", "room", "field")
_CAMERA_HEIGHT = {"table": (0.28, 0.45), "room": (1.3, 1.8), "field": (2.2, 4.0)}
_LANDSCAPE = (0.666, 0.667, 0.668, 0.664, 0.662, 0.75, 0.75, 0.5625)
_PORTRAIT = (0.75, 0.667, 0.75, 0.5625)
MIN_SEEN = 0.5
WHOLE_SEEN = 0.88
"""Visible shares of a silhouette from which an object is spoken of, and from which its size is."""


@dataclass(frozen=True)
class Camera:
    """A level pinhole camera. ``focal``, ``centre_x`` and ``horizon`` in pixels, ``height`` in metres."""

    focal: float
    centre_x: float
    horizon: float
    height: float


@dataclass(frozen=True)
class Thing:
    """One object of the scene.

    Attributes:
        colour, category: its words, as in ``red ball``.
        surface: how light falls on it (:class:`~theworld.synthetic.shapes.Category`).
        hanging: in the air, not on the ground.
        box: extent of the whole silhouette in pixels; may reach beyond the picture.
        silhouette: bool ``(y1 - y0, x1 - x0)``.
        depth, width, height: metres.
        centre: ``(X, Y, Z)`` of the box's centre, metres.
    """

    colour: str
    category: str
    surface: str
    hanging: bool
    box: Box
    silhouette: np.ndarray
    depth: float
    width: float
    height: float
    centre: tuple[float, float, float]


@dataclass(frozen=True)
class Region:
    """What is seen of one object.

    Attributes:
        thing: the object.
        index: its place in ``Scene.things``.
        box: tight extent of its visible pixels.
        seen: visible share of its silhouette.
        whole: the visible extent is the whole extent and little is covered, so sizes can be read off the picture.
    """

    thing: Thing
    index: int
    box: Box
    seen: float
    whole: bool


@dataclass(frozen=True)
class Scene:
    """A picture's geometry.

    Attributes:
        kind: ``table``, ``room`` or ``field``.
        width, height: of the picture, pixels.
        gray: the picture is to be grayscale.
        camera: how it is seen.
        far_edge: row where the ground ends (at a wall or the horizon).
        things: far to near.
        labels: uint8 ``(height, width)``: 0 for the background, else 1 + the index of the thing seen there.
        regions: the things of which enough is seen, in no particular order.
    """

    kind: str
    width: int
    height: int
    gray: bool
    camera: Camera
    far_edge: int
    things: tuple[Thing, ...]
    labels: np.ndarray
    regions: tuple[Region, ...]


def compose(rng: random.Random, size: int) -> Scene:
    """Lay out a scene whose longest side is ``size`` pixels."""
    while True:
        scene = _try_compose(rng, size)
        # A talk needs pairs whose sizes and distances can be asked for.
        if sum(region.whole for region in scene.regions) >= 5:
            return scene


def _try_compose(rng: random.Random, size: int) -> Scene:
    width, height = _picture_size(rng, size)
    kind = rng.choice(KINDS)
    camera = Camera(
        focal=size * rng.uniform(0.9, 1.15),
        centre_x=width * rng.uniform(0.45, 0.55),
        horizon=height * rng.uniform(0.26, 0.4),
        height=rng.uniform(*_CAMERA_HEIGHT[kind]),
    )
    gray = rng.random() < 0.02
    far_edge = round(camera.horizon + (height - camera.horizon) * (0.0 if kind == "field" else 0.16))
    things = _place(rng, camera, (width, height), kind, gray)
    things.sort(key=lambda thing: -thing.depth)
    labels = np.zeros((height, width), dtype=np.uint8)
    for index, thing in enumerate(things):
        window, cut = clip(thing.box, width, height)
        labels[window][thing.silhouette[cut]] = index + 1
    regions = tuple(region for k, thing in enumerate(things) if (region := _look(labels, thing, k)))
    return Scene(kind, width, height, gray, camera, far_edge, tuple(things), labels, regions)


def _picture_size(rng: random.Random, size: int) -> tuple[int, int]:
    longest = size if rng.random() < 0.96 else round(size * rng.uniform(0.75, 0.99))
    if rng.random() < 0.22:
        return round(longest * rng.choice(_PORTRAIT)), longest
    return longest, round(longest * rng.choice(_LANDSCAPE))


def _place(rng: random.Random, camera: Camera, picture: tuple[int, int], kind: str, gray: bool) -> list[Thing]:
    """Place up to some dozen things, with unlike names, that cover each other a little at most."""
    wanted = rng.randint(8, 13)
    palette = _GRAY_COLOURS if gray else tuple(COLOURS)
    things: list[Thing] = []
    names: set[str] = set()
    cut_by_border = 0
    for _ in range(wanted * 20):
        colour, category = rng.choice(palette), rng.choice(CATEGORIES)
        name = category.names[0] if gray else f"{colour} {category.names[0]}"
        spot = _spot(rng, category, camera, picture)
        if spot is None or name in names:
            continue
        box, depth = spot
        inside = _area(_inside(box, picture)) / _area(box)
        if inside < 0.6 or (inside < 1 and cut_by_border >= 3):
            continue
        if any(_covers_too_much(box, other.box) for other in things):
            continue
        cut_by_border += inside < 1
        names.add(name)
        drawn = silhouette(category, box[2] - box[0], box[3] - box[1], max(picture) / 1024, rng)
        things.append(_measured(category, colour, kind, drawn, (box[0], box[3]), depth, camera))
        if len(things) == wanted:
            break
    return things


def _spot(rng: random.Random, category: Category, camera: Camera, picture: tuple[int, int]) -> tuple[Box, float] | None:
    """A random place for a thing, as its box and depth; None when it would be seen too small or too large."""
    picture_width, picture_height = picture
    below = picture_height - camera.horizon
    if category.hanging:
        depth = camera.focal * camera.height / below * math.exp(rng.uniform(0.3, 1.4))
        bottom = round(rng.uniform(0.1, 1.1) * camera.horizon)
    else:
        bottom = round(camera.horizon + below * math.exp(-rng.uniform(-0.06, 1.45)))
        depth = camera.focal * camera.height / (bottom - camera.horizon)
    height = round(rng.uniform(*category.height) * camera.height * camera.focal / depth)
    width = round(height * rng.uniform(*category.aspect))
    smallest = max(6, max(picture) // 16)
    if not (smallest <= width <= 0.6 * picture_width and smallest <= height <= 0.6 * picture_height):
        return None
    left = round(rng.uniform(-0.05, 1.05) * picture_width - width / 2)
    return (left, bottom - height, left + width, bottom), depth


def _measured(
    category: Category,
    colour: str,
    kind: str,
    drawn: np.ndarray,
    corner: tuple[int, int],
    depth: float,
    camera: Camera,
) -> Thing:
    """The thing whose silhouette has its lower left corner at ``corner``, with its size in metres."""
    left, bottom = corner
    rows, columns = drawn.shape
    scale = depth / camera.focal
    centre = (
        (left + columns / 2 - camera.centre_x) * scale,
        camera.height - (bottom - rows / 2 - camera.horizon) * scale,
        depth,
    )
    return Thing(
        colour=colour,
        category=category.names[KINDS.index(kind)],
        surface=category.surface,
        hanging=category.hanging,
        box=(left, bottom - rows, left + columns, bottom),
        silhouette=drawn,
        depth=depth,
        width=columns * scale,
        height=rows * scale,
        centre=centre,
    )


def _look(labels: np.ndarray, thing: Thing, index: int) -> Region | None:
    """What is seen of a thing, or None when it is too little to speak of."""
    window, _ = clip(thing.box, labels.shape[1], labels.shape[0])
    visible = labels[window] == index + 1
    seen = np.count_nonzero(visible) / np.count_nonzero(thing.silhouette)
    if seen < MIN_SEEN:
        return None
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    top, left = window[0].start, window[1].start
    box = (left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1)
    return Region(thing, index, box, seen, whole=box == thing.box and seen >= WHOLE_SEEN)


def clip(box: Box, width: int, height: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns of the picture that ``box`` covers, and of the box that lie in the picture."""
    x0, y0, x1, y1 = _inside(box, (width, height))
    window = (slice(y0, y1), slice(x0, x1))
    return window, (slice(y0 - box[1], y1 - box[1]), slice(x0 - box[0], x1 - box[0]))


def _inside(box: Box, picture: tuple[int, int]) -> Box:
    """The part of a box that lies in the picture; empty, but never inverted, when none does."""
    x0, x1 = (min(max(x, 0), picture[0]) for x in (box[0], box[2]))
    y0, y1 = (min(max(y, 0), picture[1]) for y in (box[1], box[3]))
    return x0, y0, x1, y1


def _area(box: Box) -> int:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def _covers_too_much(one: Box, other: Box) -> bool:
    common = max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])
    return _area(common) > 0.2 * min(_area(one), _area(other))
