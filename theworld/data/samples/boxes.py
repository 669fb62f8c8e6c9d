"""Boxes and labels drawn into the picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from theworld.data.samples.label_places import LabelPlaces, Rectangle
from theworld.data.samples.regions import Region

DRAWING_STYLE = 2
"""Version of what boxes and labels look like. Increment it with any change of the pixels, so that world latents made
from pictures in another style are not used."""
COLOURS = (
    "#e6194b",
    "#3cb44b",
    "#4363d8",
    "#f58231",
    "#911eb4",
    "#008080",
    "#f032e6",
    "#9a6324",
    "#808000",
    "#000075",
    "#800000",
    "#2f4f4f",
)
SMALLEST_FONT = 7
PADDING = 2
MOST_LABELLED = 0.5
"""Share of the picture that labels may take before the font shrinks."""


def draw_regions(image: Image.Image, regions: Sequence[Region]) -> Image.Image:
    """A copy of the picture, in RGB, with every region drawn as :func:`draw_into` does."""
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    draw_into(pixels, regions)
    return Image.fromarray(pixels)


def draw_into(pixels: np.ndarray, regions: Sequence[Region]) -> None:
    """Draw every region's box and its label ``Region [g]``.

    Boxes are clamped to the picture, inverted ones are put right. Labels never overlap one another as long as
    the picture has room for them; when it has not, the font shrinks first.

    Args:
        pixels: (H, W, 3) uint8, changed.
        regions: boxes in pixels of this picture.
    """
    if not regions:
        return
    height, width = pixels.shape[:2]
    boxes = [clamp_box(region.box, width, height) for region in regions]
    texts = [f"Region [{region.number}]" for region in regions]
    font_size, labels = place_labels(texts, boxes, width, height)
    line = max(1, round(max(width, height) / 400))
    for region, box in zip(regions, boxes, strict=True):
        draw_outline(pixels, box, ImageColor.getrgb(colour_of(region)), line)
    for region, text, (left, top, _, _) in zip(regions, texts, labels, strict=True):
        label = draw_label(text, font_size, colour_of(region))[: height - top, : width - left]
        pixels[top : top + label.shape[0], left : left + label.shape[1]] = label


def colour_of(region: Region) -> str:
    """The colour of a region's box and label."""
    return COLOURS[region.number % len(COLOURS)]


def draw_outline(pixels: np.ndarray, box: Rectangle, colour: tuple[int, ...], line: int) -> None:
    """The outline of a box, ``line`` pixels wide, inwards. Of a box smaller than that it also lies beyond its sides,
    just as Pillow's ``rectangle`` draws it."""
    left, top, right, bottom = box
    for y in (top, bottom - line):
        pixels[max(0, y) : max(0, y + line), left:right] = colour
    upper, lower = top + line, bottom - line
    rows = slice(upper, lower) if upper <= lower else slice(max(0, lower + 1), upper + 1)
    for x in (left, right - line):
        pixels[rows, max(0, x) : max(0, x + line)] = colour


@lru_cache(maxsize=1024)
def draw_label(text: str, font_size: int, colour: str) -> np.ndarray:
    """A label with its text, (h, w, 3) uint8 as :func:`label_size` says; read only."""
    font = label_font(font_size)
    picture = Image.new("RGB", label_size(text, font_size), colour)
    ink = font.getbbox(text)
    ImageDraw.Draw(picture).text((PADDING - ink[0], PADDING - ink[1]), text, fill="white", font=font)
    return np.asarray(picture)


def clamp_box(box: Sequence[float], width: int, height: int) -> Rectangle:
    """The box inside a W x H picture, corners in order, at least one pixel wide and high."""
    left, right = sorted((box[0], box[2]))
    top, bottom = sorted((box[1], box[3]))
    first_x = round(min(max(left, 0), width - 1))
    first_y = round(min(max(top, 0), height - 1))
    return first_x, first_y, max(round(min(right, width)), first_x + 1), max(round(min(bottom, height)), first_y + 1)


@lru_cache(maxsize=64)
def label_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in font, so that pictures are the same on every machine."""
    return ImageFont.load_default(size)


@lru_cache(maxsize=4096)
def label_size(text: str, font_size: int) -> tuple[int, int]:
    """Width and height in pixels of a label with its padding."""
    left, top, right, bottom = label_font(font_size).getbbox(text)
    return int(right - left) + 2 * PADDING + 1, int(bottom - top) + 2 * PADDING + 1


def place_labels(
    texts: Sequence[str], boxes: Sequence[Rectangle], width: int, height: int
) -> tuple[int, list[Rectangle]]:
    """A font size and a rectangle for each label.

    Each label takes a free place near its box, preferably one that hides no other box; if a label finds no place at
    all, all are placed again in a smaller font.
    In the smallest font, a picture too small for its labels gets them at their boxes' corners, overlapping.
    """
    font_size = max(SMALLEST_FONT, round(max(width, height) / 48))
    while True:
        sizes = [label_size(text, font_size) for text in texts]
        crowded = sum(w * h for w, h in sizes) > MOST_LABELLED * width * height
        placed = None if crowded and font_size > SMALLEST_FONT else place_all(sizes, boxes, width, height)
        if placed is not None:
            return font_size, placed
        if font_size == SMALLEST_FONT:
            corners = [(box[0], box[1]) for box in boxes]
            return font_size, [(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, sizes, strict=True)]
        font_size = max(SMALLEST_FONT, int(font_size * 0.8))


def place_all(
    sizes: Sequence[tuple[int, int]], boxes: Sequence[Rectangle], width: int, height: int
) -> list[Rectangle] | None:
    """A rectangle for each label (width, height) of a box; None if the picture has no room for some label."""
    places = LabelPlaces(boxes, width, height)
    placed: list[Rectangle] = []
    for number, size in enumerate(sizes):
        spot = places.place(number, size)
        if spot is None:
            return None
        placed.append(spot)
    return placed
