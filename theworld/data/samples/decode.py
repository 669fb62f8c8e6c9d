"""MDS sample -> decoded sample."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from theworld.data.samples.boxes import draw_regions
from theworld.data.samples.regions import Turn, read_turns, unique_regions
from theworld.errors import describe

GREY = (127, 127, 127)


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


def decode_sample(sample: Mapping[str, Any], draw_bboxes: bool = True) -> DecodedSample:
    """Decode the picture, turn region numbering global, draw the boxes.

    Args:
        sample: the MDS columns ``id``, ``image``, ``width``, ``height``, ``conversations``, ``bbox``.
        draw_bboxes: draw boxes and labels; the text names regions by their global numbers either way.

    Returns:
        The sample. A picture that cannot be decoded becomes a grey one of the recorded size, with ``no_loss``
        set: one bad file must not end a run of days.
    """
    boxes = sample["bbox"]
    turns, problems = read_turns(sample["conversations"], boxes)
    image, fault = decode_image(sample["image"], (int(sample["width"]), int(sample["height"])))
    if fault is None and draw_bboxes:
        image = draw_regions(image, unique_regions(boxes))
    no_loss = fault or (None if turns else "no question with a usable answer")
    return DecodedSample(str(sample["id"]), image, turns, problems, no_loss, sample.get("world_latents"))


def decode_image(data: bytes, size: tuple[int, int]) -> tuple[Image.Image, str | None]:
    """The RGB picture, or a grey one of (width, height) pixels and the reason."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB"), None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return Image.new("RGB", size, GREY), f"image cannot be decoded: {describe(error)}"
