"""MDS sample -> decoded sample."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from theworld.data.entries.frame import ORIENTATION, TURNED, fit
from theworld.data.samples.boxes import draw_regions
from theworld.data.samples.regions import Region, Turn, read_turns, unique_regions
from theworld.errors import describe

GREY = (127, 127, 127)
MOST_GREY = 1024
"""Pixels a side: a header's false size may have been recorded, and must not cost gigabytes."""
MOST_PIXELS = 50_000_000
"""What a header may claim unless the converter has read the same (``convert.most_pixels``)."""


@dataclass(frozen=True)
class DecodedSample:
    """What a person would look at: a picture and the turns that talk about it."""

    id: str
    image: Image.Image
    """RGB, as many pixels as the original."""
    turns: list[Turn]
    problems: list[str] = field(default_factory=list)
    """What was left out of this sample, and why."""
    no_loss: str | None = None
    """Why nothing of this sample may be trained on; None if it may."""
    world_latents: bytes | None = None
    """The picture's world latent, if it was computed before (:mod:`theworld.data.latents`)."""
    seed: int = 0
    """For a transform: its random seed (:func:`~theworld.data.samples.augment.sample_seed`)."""


def decode_sample(sample: Mapping[str, Any], draw_bboxes: bool = True) -> DecodedSample:
    """Decode the picture, make the region numbers global, draw the boxes.

    Args:
        sample: the MDS columns ``id``, ``image``, ``width``, ``height``, ``conversations``, ``bbox`` and, except in
            data sets written before it was kept, ``annotation_size``: boxes are scaled from that to the picture, and
            the picture is turned where it was annotated upright and stored turned.
        draw_bboxes: draw boxes and labels; the text names regions by their global numbers either way.

    Returns:
        The sample. A picture that cannot be decoded becomes a grey one, with ``no_loss`` set: one bad file must not end
        a run that takes days.
    """
    boxes = sample["bbox"]
    turns, problems = read_turns(sample["conversations"], boxes)
    annotated = sample.get("annotation_size")
    image, fault = decode_image(sample["image"], (int(sample["width"]), int(sample["height"])), annotated)
    regions = scale_regions(unique_regions(boxes), annotated, image.size)
    if fault is None:
        outside = [region.number for region in regions if is_outside(region, image)]
        problems += [f"box {number}: lies outside the picture" for number in outside]
        image = draw_regions(image, regions) if draw_bboxes else image
    no_loss = fault or (None if turns else "no question with a usable answer")
    return DecodedSample(str(sample["id"]), image, turns, problems, no_loss, sample.get("world_latents"))


def scale_regions(regions: list[Region], annotated: Sequence[int] | None, size: tuple[int, int]) -> list[Region]:
    """Regions of an annotation for a picture of (height, width), in pixels of one of (width, height)."""
    if not annotated or (annotated[1], annotated[0]) == size:
        return regions
    across, down = size[0] / annotated[1], size[1] / annotated[0]
    boxes = [region.box for region in regions]
    return [
        Region(number, (x1 * across, y1 * down, x2 * across, y2 * down))
        for number, (x1, y1, x2, y2) in enumerate(boxes)
    ]


def is_outside(region: Region, image: Image.Image) -> bool:
    """Whether a box shares no pixel with the picture."""
    x1, y1, x2, y2 = region.box
    beside = max(x1, x2) <= 0 or min(x1, x2) >= image.width
    return beside or max(y1, y2) <= 0 or min(y1, y2) >= image.height


def decode_image(
    data: bytes, size: tuple[int, int], annotated: Sequence[int] | None = None
) -> tuple[Image.Image, str | None]:
    """The RGB picture, or a grey one of (width, height) pixels, at most :data:`MOST_GREY` a side, and the reason.

    It is rotated as its EXIF says only where its annotation, of (height, width), describes the rotated picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MOST_PIXELS and image.size != size:
                raise ValueError(f"{image.width} x {image.height} pixels, the converter saw {size[0]} x {size[1]}")
            if fit(annotated, image.size, lambda: int(image.getexif().get(ORIENTATION, 1))) == TURNED:
                return to_rgb(ImageOps.exif_transpose(image)), None
            return to_rgb(image), None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        width, height = (min(side, MOST_GREY) for side in size)
        return Image.new("RGB", (width, height), GREY), f"image cannot be decoded: {describe(error)}"


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB. Grey of 16 bits is scaled to 8; Pillow would make all above 255 white."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
