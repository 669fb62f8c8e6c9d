"""The kinds of object that a scene may hold, and their outlines."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Polygon = list[tuple[float, float]]
"""Corners ``(x, y)`` in the unit square, y downwards."""

GAP = 3
"""Pixels at 1024 of a gap between leaves."""

OUTLINE_STEP = 2.0
"""Pixels between two corners of a drawn outline: what gives masks the ragged edge of real ones."""


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _ellipse(x: float, y: float, radius_x: float, radius_y: float, corners: int = 40) -> Polygon:
    angles = [2 * math.pi * k / corners for k in range(corners)]
    return [(x + radius_x * math.cos(a), y + radius_y * math.sin(a)) for a in angles]


def _box(_: random.Random) -> list[Polygon]:
    return [_rectangle(0, 0, 1, 1)]


def _ball(_: random.Random) -> list[Polygon]:
    return [_ellipse(0.5, 0.5, 0.5, 0.5)]


def _cone(rng: random.Random) -> list[Polygon]:
    flat = rng.uniform(0.0, 0.12)
    return [[(0.5 - flat, 0), (0.5 + flat, 0), (1, 1), (0, 1)]]


def _vase(rng: random.Random) -> list[Polygon]:
    belly, neck = rng.uniform(0.55, 0.7), rng.uniform(0.15, 0.25)
    profile = [(neck + 0.1, 0.0), (neck, 0.12), (neck, 0.25), (0.42, 0.42), (0.5, belly), (0.42, 0.85), (0.25, 1.0)]
    return [[(0.5 + x, y) for x, y in profile] + [(0.5 - x, y) for x, y in reversed(profile)]]


def _bush(rng: random.Random) -> list[Polygon]:
    lobes = [(rng.uniform(0.25, 0.75), rng.uniform(0.3, 0.6), rng.uniform(0.2, 0.32)) for _ in range(5)]
    return [_ellipse(x, y, r, r) for x, y, r in lobes] + [_ellipse(0.5, 0.7, 0.45, 0.3), _rectangle(0.2, 0.7, 0.8, 1)]


def _tree(rng: random.Random) -> list[Polygon]:
    trunk, crown = rng.uniform(0.06, 0.1), rng.uniform(0.55, 0.7)
    lobes = [(rng.uniform(0.3, 0.7), rng.uniform(0.2, crown - 0.15), rng.uniform(0.2, 0.28)) for _ in range(5)]
    middle = _ellipse(0.5, crown / 2, 0.5, crown / 2)
    return [_ellipse(x, y, r, r * 0.8) for x, y, r in lobes] + [middle, _rectangle(0.5 - trunk, 0.4, 0.5 + trunk, 1)]


def _sign(rng: random.Random) -> list[Polygon]:
    disc = rng.uniform(0.4, 0.5)
    corners = rng.choice([4, 6, 8, 40])
    return [_ellipse(0.5, disc / 2, 0.5, disc / 2, corners), _rectangle(0.44, disc / 2, 0.56, 1)]


def _bench(rng: random.Random) -> list[Polygon]:
    top, leg = rng.uniform(0.2, 0.35), rng.uniform(0.08, 0.15)
    return [_rectangle(0, 0, 1, top), _rectangle(0.05, 0, 0.05 + leg, 1), _rectangle(0.95 - leg, 0, 0.95, 1)]


def _arch(rng: random.Random) -> list[Polygon]:
    inner = rng.uniform(0.2, 0.3)
    turn = [math.pi * k / 20 for k in range(21)]
    outside = [(0.5 - 0.5 * math.cos(a), 0.45 - 0.45 * math.sin(a)) for a in turn]
    inside = [(0.5 + inner * math.cos(a), 0.45 - inner * math.sin(a)) for a in turn]
    return [[*outside, (1, 1), (0.5 + inner, 1), *inside, (0.5 - inner, 1), (0, 1)]]


def _house(rng: random.Random) -> list[Polygon]:
    eaves = rng.uniform(0.3, 0.45)
    return [_rectangle(0.06, eaves, 0.94, 1), [(0, eaves), (0.5, 0), (1, eaves)]]


def _bottle(rng: random.Random) -> list[Polygon]:
    shoulder, neck = rng.uniform(0.35, 0.45), rng.uniform(0.14, 0.2)
    right = [(neck, 0.0), (neck, shoulder - 0.12), (0.5, shoulder), (0.5, 1.0)]
    return [[(0.5 + x, y) for x, y in right] + [(0.5 - x, y) for x, y in reversed(right)]]


def _rack(rng: random.Random) -> list[Polygon]:
    boards, thick = rng.randint(3, 5), rng.uniform(0.06, 0.1)
    tops = [k * (1 - thick) / (boards - 1) for k in range(boards)]
    posts = [_rectangle(0, 0, 0.08, 1), _rectangle(0.92, 0, 1, 1)]
    return posts + [_rectangle(0, top, 1, top + thick) for top in tops]


def _mug(_: random.Random) -> list[Polygon]:
    handle = [*_ellipse(0.78, 0.45, 0.22, 0.28), (1.0, 0.45)]
    hole = list(reversed(_ellipse(0.78, 0.45, 0.1, 0.15)))
    return [_rectangle(0, 0, 0.75, 1), [*handle, (0.88, 0.45), *hole[-1:], *hole]]


def _balloon(_: random.Random) -> list[Polygon]:
    return [_ellipse(0.5, 0.45, 0.5, 0.45), [(0.5, 0.85), (0.6, 1), (0.4, 1)]]


def _kite(rng: random.Random) -> list[Polygon]:
    return [[(0.5, 0), (1, rng.uniform(0.3, 0.4)), (0.5, 1), (0, rng.uniform(0.3, 0.4))]]


def _star(rng: random.Random) -> list[Polygon]:
    points, inner = rng.choice([5, 6, 7]), rng.uniform(0.22, 0.3)
    radii = [0.5 if k % 2 == 0 else inner for k in range(2 * points)]
    turn = [math.pi * k / points - math.pi / 2 for k in range(2 * points)]
    return [[(0.5 + r * math.cos(a), 0.5 + r * math.sin(a)) for r, a in zip(radii, turn, strict=True)]]


def _lamp(rng: random.Random) -> list[Polygon]:
    rim = rng.uniform(0.1, 0.25)
    return [[(0.5 - rim, 0.25), (0.5 + rim, 0.25), (1, 1), (0, 1)], _rectangle(0.47, 0, 0.53, 0.4)]


@dataclass(frozen=True)
class Category:
    """A kind of object.

    Attributes:
        names: what it is called on a table, in a room, in a field.
        outline: draws its polygons (their union is the object).
        height: range of heights, in camera heights.
        aspect: range of width / height.
        surface: how light falls on it: ``flat``, ``round`` (a cylinder) or ``ball``.
        hanging: in the air instead of on the ground.
        ragged: how far the outline strays, in pixels at 1024.
        gaps: how much of it one sees through, as between leaves: level below which uniform noise leaves a gap.
    """

    names: tuple[str, str, str]
    outline: Callable[[random.Random], list[Polygon]]
    height: tuple[float, float]
    aspect: tuple[float, float]
    surface: str = "flat"
    hanging: bool = False
    ragged: float = 1.0
    gaps: float = 0.0


CATEGORIES = (
    Category(("box", "cabinet", "shed"), _box, (0.4, 1.1), (0.7, 1.8)),
    Category(("ball", "ball", "boulder"), _ball, (0.3, 0.9), (0.97, 1.03), "ball"),
    Category(("cone", "cone", "tent"), _cone, (0.45, 1.1), (0.7, 1.5), "round"),
    Category(("candle", "column", "post"), _box, (0.7, 1.4), (0.18, 0.35), "round"),
    Category(("vase", "vase", "urn"), _vase, (0.5, 1.1), (0.55, 0.9), "round"),
    Category(("plant", "plant", "bush"), _bush, (0.5, 1.1), (0.9, 1.8), "ball", ragged=3.0, gaps=0.26),
    Category(("bonsai", "potted tree", "tree"), _tree, (0.9, 1.6), (0.6, 1.0), "ball", ragged=3.0, gaps=0.26),
    Category(("sign", "sign", "road sign"), _sign, (0.7, 1.4), (0.45, 0.65)),
    Category(("stool", "bench", "bench"), _bench, (0.4, 0.75), (1.2, 2.4)),
    Category(("arch", "doorway", "gate"), _arch, (0.6, 1.3), (0.8, 1.5)),
    Category(("dollhouse", "dollhouse", "house"), _house, (0.6, 1.2), (0.8, 1.5)),
    Category(("bottle", "barrel", "silo"), _bottle, (0.5, 1.1), (0.3, 0.5), "round"),
    Category(("mug", "pitcher", "watering can"), _mug, (0.35, 0.7), (0.9, 1.3), "round"),
    Category(("basket", "basket", "nest"), _vase, (0.35, 0.8), (1.0, 1.7), "round", ragged=2.0, gaps=0.2),
    Category(("fern", "fern", "hedge"), _bush, (0.35, 0.7), (1.3, 2.4), "ball", ragged=4.0, gaps=0.26),
    Category(("rack", "bookcase", "fence"), _rack, (0.5, 1.1), (0.7, 1.6)),
    Category(("balloon", "balloon", "balloon"), _balloon, (0.4, 1.0), (0.7, 0.95), "ball", hanging=True),
    Category(("kite", "kite", "kite"), _kite, (0.4, 1.0), (0.6, 1.1), hanging=True),
    Category(("star", "star", "star"), _star, (0.35, 0.8), (0.95, 1.05), hanging=True),
    Category(("lamp", "lamp", "lantern"), _lamp, (0.35, 0.8), (0.8, 1.4), "round", hanging=True),
    Category(("wreath", "wreath", "wreath"), _ball, (0.35, 0.8), (0.9, 1.1), hanging=True, ragged=3.0, gaps=0.26),
)


def silhouette(category: Category, width: int, height: int, scale: float, rng: random.Random) -> np.ndarray:
    """Rasterize one object's outline.

    Args:
        category: what to draw.
        width, height: wanted extent in pixels; the result is cropped to what was set, at most this.
        scale: the picture's longest side over 1024.
        rng: chooses the shape's own parameters and the stray.

    Returns:
        bool array ``(height, width)`` whose first and last rows and columns each hold a set pixel.
    """
    polygons = [np.asarray(p, dtype=np.float64) for p in category.outline(rng)]
    corners = np.concatenate(polygons)
    low, span = corners.min(axis=0), np.ptp(corners, axis=0)
    extent = np.array([width - 1, height - 1])
    canvas = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(canvas)
    noise = np.random.default_rng(rng.getrandbits(64))
    stray = category.ragged * scale
    for polygon in polygons:
        points = _densify((polygon - low) / span * extent)
        points += noise.uniform(-stray, stray, points.shape)
        draw.polygon(np.clip(points, 0, extent).ravel().tolist(), fill=255)
    drawn = np.asarray(canvas) > 0
    if category.gaps:
        grain = max(1, round(GAP * scale))
        cells = noise.random((height // grain + 2, width // grain + 2), dtype=np.float32)
        field = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        drawn &= np.asarray(field) > category.gaps
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    return drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _densify(points: np.ndarray) -> np.ndarray:
    """Put a corner every :data:`OUTLINE_STEP` pixels along a closed polygon ``(n, 2)``."""
    closed = np.concatenate([points, points[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    count = max(len(points), int(along[-1] / OUTLINE_STEP))
    at = np.linspace(0.0, along[-1], count, endpoint=False)
    return np.stack([np.interp(at, along, closed[:, 0]), np.interp(at, along, closed[:, 1])], axis=1)
