"""Boxes and labels as Pillow draws them: what the quick drawing is held to, and what the rivals of a benchmark call."""

from __future__ import annotations

from PIL import Image, ImageDraw

from theworld.data.samples import boxes
from theworld.data.samples.regions import Region


def draw_with_pillow(picture: Image.Image, regions: list[Region]) -> Image.Image:
    """The drawing style in Pillow's own calls: stored world latents were made of such pictures."""
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    clamped = [boxes.clamp_box(region.box, *drawn.size) for region in regions]
    texts = [f"Region [{region.number}]" for region in regions]
    font_size, labels = boxes.place_labels(texts, clamped, *drawn.size)
    font, line = boxes.label_font(font_size), max(1, round(max(drawn.size) / 400))
    for region, (left, top, right, bottom) in zip(regions, clamped, strict=True):
        pen.rectangle((left, top, right - 1, bottom - 1), outline=boxes.colour_of(region), width=line)
    for region, text, (left, top, right, bottom) in zip(regions, texts, labels, strict=True):
        pen.rectangle((left, top, right - 1, bottom - 1), fill=boxes.colour_of(region))
        ink = font.getbbox(text)
        pen.text((left + boxes.PADDING - ink[0], top + boxes.PADDING - ink[1]), text, fill="white", font=font)
    return drawn
