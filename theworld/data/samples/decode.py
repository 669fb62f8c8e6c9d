"""MDS sample -> decoded sample."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from theworld.data.entries.columns import ABOUT, BOX_IMAGES, MORE_IMAGES, Picture, unpack_more
from theworld.data.entries.frame import ORIENTATION, TURNED, fit
from theworld.data.samples.boxes import draw_into
from theworld.data.samples.jpeg import decode_quickly
from theworld.data.samples.regions import Region, Turn, read_turns, unique_regions
from theworld.errors import describe

GREY = (127, 127, 127)
MOST_GREY = 1024
"""Pixels a side: a header's false size may have been recorded, and must not cost gigabytes."""
MOST_PIXELS = 50_000_000
"""What a header may claim unless the converter has read the same (``convert.most_pixels``)."""


class AsImage:
    """The field ``image`` of a sample: given as pixels or as a picture, read as a picture, which is made when somebody
    asks for it. Training does not, unless it has a transform."""

    def __get__(self, sample: DecodedSample | None, owner: type) -> Any:
        if sample is None:
            raise AttributeError("image")  # no default
        given = vars(sample)["_image"]
        if isinstance(given, np.ndarray):
            given = vars(sample)["_image"] = Image.fromarray(given)
        return given

    def __set__(self, sample: DecodedSample, value: Image.Image | np.ndarray | None) -> None:
        vars(sample)["_image"] = value


@dataclass(frozen=True)
class DecodedSample:
    """What a person would look at: a picture, or several, or none, and the turns that talk about them."""

    id: str
    image: AsImage = AsImage()
    """RGB, as many pixels as the original; of several the first; None: the sample is text alone."""
    turns: list[Turn]  # pyright: ignore[reportGeneralTypeIssues] - the field before it has no default
    problems: list[str] = field(default_factory=list)
    """What was left out of this sample, and why."""
    no_loss: str | None = None
    """Why nothing of this sample may be trained on; None if it may."""
    world_latents: bytes | None = None
    """The picture's world latent, if it was computed before (:mod:`theworld.data.latents`)."""
    seed: int = 0
    """For a transform: its random seed (:func:`~theworld.data.samples.augment.sample_seed`)."""
    more: list[Image.Image | np.ndarray] = field(default_factory=list)
    """The other pictures, where there are several: RGB, as pictures or (H, W, 3) uint8. In the questions ``<image>``
    stands for each picture then, in their order."""

    @property
    def pixels(self) -> np.ndarray:
        """The (first) picture as (H, W, 3) uint8."""
        return as_pixels(vars(self)["_image"])

    @property
    def pictures(self) -> list[np.ndarray]:
        """All pictures as (H, W, 3) uint8."""
        first = vars(self)["_image"]
        return [as_pixels(one) for one in ([] if first is None else [first, *self.more])]


def as_pixels(picture: Image.Image | np.ndarray) -> np.ndarray:
    """A picture as (H, W, 3) uint8."""
    return picture if isinstance(picture, np.ndarray) else np.array(picture.convert("RGB"))


def stored_pictures(sample: Mapping[str, Any]) -> list[Picture]:
    """The image files of an MDS sample, in their order; none of one that is text alone."""
    if not len(sample["image"]) and not int(sample["width"]):
        return []
    first = Picture(sample["image"], int(sample["width"]), int(sample["height"]))
    return [first, *unpack_more(sample.get(MORE_IMAGES) or b"")]


def box_owners(sample: Mapping[str, Any]) -> list[int]:
    """The picture that each box of an MDS sample is of; none: all are of the first."""
    return (sample.get(ABOUT) or {}).get(BOX_IMAGES) or []


def stored_turns(sample: Mapping[str, Any]) -> tuple[list[Turn], list[str], int]:
    """What :func:`~theworld.data.samples.regions.read_turns` gives of an MDS sample, and how many pictures it has."""
    pictures = len(stored_pictures(sample))
    return *read_turns(sample["conversations"], sample["bbox"], box_owners(sample), pictures), pictures


def decode_sample(sample: Mapping[str, Any], draw_bboxes: bool = True) -> DecodedSample:
    """Decode the pictures, make the region numbers global, draw the boxes.

    Args:
        sample: the MDS columns ``id``, ``image``, ``width``, ``height``, ``conversations``, ``bbox`` and, except in
            data sets written before it was kept, ``annotation_size``: boxes are scaled from that to their picture, and
            the picture is turned where it was annotated upright and stored turned; ``more_images`` and ``about`` if
            there are such.
        draw_bboxes: draw boxes and labels; the text names regions by their global numbers either way.

    Returns:
        The sample. A picture that cannot be decoded becomes a grey one, with ``no_loss`` set: one bad file must not end
        a run that takes days.
    """
    pictures, owners = stored_pictures(sample), box_owners(sample)
    turns, problems = read_turns(sample["conversations"], sample["bbox"], owners, len(pictures))
    regions = unique_regions(sample["bbox"], owners)
    decoded: list[np.ndarray] = []
    faults: list[str] = []
    for number, picture in enumerate(pictures):
        own = [region for region in regions if region.picture == number]
        annotated = sample.get("annotation_size") if own or len(pictures) == 1 else None
        pixels, fault = decode_image(picture.data, (picture.width, picture.height), annotated)
        size = pixels.shape[1], pixels.shape[0]
        own = scale_regions(own, annotated, size)
        if fault is None:
            problems += [f"box {region.number}: lies outside the picture" for region in own if is_outside(region, size)]
            if draw_bboxes:
                draw_into(pixels, own)
        else:
            faults.append(fault if len(pictures) == 1 else f"picture {number}: {fault}")
        decoded.append(pixels)
    no_loss = faults[0] if faults else None if turns else "no question with a usable answer"
    return DecodedSample(
        str(sample["id"]),
        decoded[0] if decoded else None,  # pyright: ignore[reportArgumentType] - what the descriptor takes
        turns,
        problems,
        no_loss,
        sample.get("world_latents"),
        more=list(decoded[1:]),
    )


def scale_regions(regions: list[Region], annotated: Sequence[int] | None, size: tuple[int, int]) -> list[Region]:
    """Regions of an annotation for a picture of (height, width), in pixels of one of (width, height)."""
    if not annotated or (annotated[1], annotated[0]) == size:
        return regions
    across, down = size[0] / annotated[1], size[1] / annotated[0]
    scaled = [(x1 * across, y1 * down, x2 * across, y2 * down) for x1, y1, x2, y2 in (one.box for one in regions)]
    return [replace(region, box=box) for region, box in zip(regions, scaled, strict=True)]


def is_outside(region: Region, size: tuple[int, int]) -> bool:
    """Whether a box shares no pixel with a picture of (width, height)."""
    x1, y1, x2, y2 = region.box
    beside = max(x1, x2) <= 0 or min(x1, x2) >= size[0]
    return beside or max(y1, y2) <= 0 or min(y1, y2) >= size[1]


def decode_image(
    data: bytes, size: tuple[int, int], annotated: Sequence[int] | None = None
) -> tuple[np.ndarray, str | None]:
    """The picture's pixels, (H, W, 3) uint8, or those of a grey one of (width, height), at most :data:`MOST_GREY` a
    side, and the reason.

    It is rotated as its EXIF says only where its annotation, of (height, width), describes the rotated picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MOST_PIXELS and image.size != size:
                raise ValueError(f"{image.width} x {image.height} pixels, the converter saw {size[0]} x {size[1]}")
            if fit(annotated, image.size, lambda: int(image.getexif().get(ORIENTATION, 1))) == TURNED:
                return np.array(to_rgb(ImageOps.exif_transpose(image))), None
            pixels = decode_quickly(data, image.format, image.mode)
            return np.array(to_rgb(image)) if pixels is None else pixels, None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        width, height = (min(side, MOST_GREY) for side in size)
        return np.full((height, width, 3), GREY, np.uint8), f"image cannot be decoded: {describe(error)}"


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB. Grey of 16 bits is scaled to 8; Pillow would make all above 255 white."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
