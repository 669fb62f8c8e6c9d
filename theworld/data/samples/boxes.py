"""Boxes and labels drawn into the picture, labels placed so that none covers another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from theworld.data.samples.regions import Region

Rectangle = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels, right and bottom exclusive."""

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


def draw_regions(image: Image.Image, regions: Sequence[Region]) -> Image.Image:
    """A copy of the picture with every region's box and its label ``Region [g]``.

    Boxes are clamped to the picture, inverted ones are turned round. Labels never overlap one another as long as
    the picture has room for them; when it has not, the font shrinks first.

    Args:
        image: RGB, W x H pixels.
        regions: boxes in pixels of this picture.

    Returns:
        RGB, same size.
    """
    drawn = image.convert("RGB") if image.mode != "RGB" else image.copy()
    if not regions:
        return drawn
    width, height = drawn.size
    boxes = [clamp_box(region.box, width, height) for region in regions]
    texts = [f"Region [{region.number}]" for region in regions]
    font_size, labels = place_labels(texts, boxes, width, height)
    font = label_font(font_size)
    pen = ImageDraw.Draw(drawn)
    line = max(1, round(max(width, height) / 400))
    for region, (left, top, right, bottom) in zip(regions, boxes, strict=True):
        colour = COLOURS[region.number % len(COLOURS)]
        pen.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=line)
    for region, text, label in zip(regions, texts, labels, strict=True):
        left, top, right, bottom = label
        pen.rectangle((left, top, right - 1, bottom - 1), fill=COLOURS[region.number % len(COLOURS)])
        ink = font.getbbox(text)
        pen.text((left + PADDING - ink[0], top + PADDING - ink[1]), text, fill="white", font=font)
    return drawn


def clamp_box(box: Sequence[float], width: int, height: int) -> Rectangle:
    """The box inside a W x H picture, corners in order, at least one pixel wide and high."""
    left, right = sorted((box[0], box[2]))
    top, bottom = sorted((box[1], box[3]))
    first_x = min(max(round(left), 0), width - 1)
    first_y = min(max(round(top), 0), height - 1)
    return first_x, first_y, max(min(round(right), width), first_x + 1), max(min(round(bottom), height), first_y + 1)


@lru_cache(maxsize=64)
def label_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in font, so that pictures are the same on every machine."""
    return ImageFont.load_default(size)


def label_size(text: str, font_size: int) -> tuple[int, int]:
    """Width and height in pixels of a label with its padding."""
    left, top, right, bottom = label_font(font_size).getbbox(text)
    return int(right - left) + 2 * PADDING + 1, int(bottom - top) + 2 * PADDING + 1


def place_labels(
    texts: Sequence[str], boxes: Sequence[Rectangle], width: int, height: int
) -> tuple[int, list[Rectangle]]:
    """A font size and a rectangle for each label.

    Each label takes the first free place near its box; if one finds none, all are placed again in a smaller font.
    In the smallest font, a picture too small for its labels gets them at their boxes' corners, overlapping.
    """
    font_size = max(SMALLEST_FONT, round(max(width, height) / 48))
    while True:
        placed: list[Rectangle] = []
        for text, box in zip(texts, boxes, strict=True):
            size = label_size(text, font_size)
            spot = next((spot for spot in candidate_spots(box, size, width, height) if is_free(spot, placed)), None)
            if spot is None:
                break
            placed.append(spot)
        if len(placed) == len(texts):
            return font_size, placed
        if font_size == SMALLEST_FONT:
            corners = [(box[0], box[1]) for box in boxes]
            sizes = [label_size(text, font_size) for text in texts]
            return font_size, [(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, sizes, strict=True)]
        font_size = max(SMALLEST_FONT, int(font_size * 0.8))


def candidate_spots(box: Rectangle, size: tuple[int, int], width: int, height: int) -> Iterator[Rectangle]:
    """Places for a label that lie in the picture: at the box's corners, then any on a grid, nearest first."""
    label_width, label_height = size
    if label_width > width or label_height > height:
        return
    left, top, right, bottom = box

    def rectangle(x: int, y: int) -> Rectangle:
        x = min(max(x, 0), width - label_width)
        y = min(max(y, 0), height - label_height)
        return x, y, x + label_width, y + label_height

    yield rectangle(left, top - label_height)
    yield rectangle(right - label_width, top - label_height)
    yield rectangle(left, top)
    yield rectangle(right - label_width, top)
    yield rectangle(left, bottom)
    yield rectangle(right - label_width, bottom)
    yield rectangle(left, bottom - label_height)
    yield rectangle(right - label_width, bottom - label_height)
    columns = range(0, width - label_width + 1, max(1, label_width // 2))
    rows = range(0, height - label_height + 1, max(1, label_height // 2))
    grid = [(x, y) for y in rows for x in columns]
    grid.sort(key=lambda spot: (abs(spot[0] - left) + abs(spot[1] - top), spot))
    for x, y in grid:
        yield rectangle(x, y)


def is_free(spot: Rectangle, placed: Sequence[Rectangle]) -> bool:
    """Whether the rectangle shares no pixel with those already placed."""
    left, top, right, bottom = spot
    return all(right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top for other in placed)
