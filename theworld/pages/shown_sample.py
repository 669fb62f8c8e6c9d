"""A stored sample as a page shows it: the picture as the model sees it, sentences and the regions that they name."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.entries.columns import MASKS, MORE_IMAGES, WORLD_LATENTS
from theworld.data.samples.boxes import COLOURS
from theworld.data.samples.decode import box_owners, decode_sample, scale_regions
from theworld.data.samples.regions import CITATION, LONGEST_NUMBER, Region, Turn, mention_numbers, unique_regions
from theworld.pages.mask_outline import outline

LONGEST_SIDE = 640
"""Pixels of the picture on the page."""
SENTENCE = re.compile(r"(?<=[.!?])\s+")
NOT_SHOWN = ("image", MORE_IMAGES, MASKS, WORLD_LATENTS)
"""Columns that are no text."""


@dataclass(frozen=True)
class Sentence:
    """A piece of text, and the numbers of the regions that it names."""

    text: str
    regions: tuple[int, ...]


@dataclass(frozen=True)
class ShownTurn:
    """A question and its answer. ``state`` is ``trained``, ``cut`` (beyond max_seq_len) or ``masked`` (the whole sample
    carries no loss)."""

    question: tuple[Sentence, ...]
    answer: tuple[Sentence, ...]
    state: str


@dataclass(frozen=True)
class ShownRegion:
    """A drawn box, in pixels of the original picture, its sides in order."""

    number: int
    x: float
    y: float
    width: float
    height: float
    colour: str
    mask: str = ""
    """The outline of its mask, a path of SVG; "" where the data set keeps none."""
    stretch: str = ""
    """What lays that over the picture."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of a sample as the model reads it."""

    text: int
    image: int
    world: int
    trained: int
    """Those that carry loss."""


@dataclass(frozen=True)
class ShownPicture:
    """A picture with the regions in it."""

    address: str
    """A ``data:`` address."""
    width: int
    height: int
    regions: tuple[ShownRegion, ...]


@dataclass(frozen=True)
class ShownSample:
    """All that a page says of a sample."""

    id: str
    generation: str
    pictures: tuple[ShownPicture, ...]
    turns: tuple[ShownTurn, ...]
    warnings: tuple[str, ...]
    entry: str
    """Its source entry as JSON."""
    tokens: Tokens | None = None
    """None: without a model nothing is counted, and nothing cut."""
    truncated: bool = False
    irregular: bool = field(default=False)

    @property
    def regions(self) -> tuple[ShownRegion, ...]:
        """Those of all pictures."""
        return tuple(region for picture in self.pictures for region in picture.regions)


def show_sample(
    stored: Mapping[str, Any], generation: str, encoder: SampleEncoder | None, draw_bboxes: bool = True
) -> ShownSample:
    """A sample for the page.

    Args:
        stored: its columns.
        generation: where it stands.
        encoder: counts tokens and cuts turns as in training; None: neither.
        draw_bboxes: as in training.
    """
    decoded = decode_sample(stored, draw_bboxes)
    regions = unique_regions(stored["bbox"], box_owners(stored))
    encoded = encoder(decoded) if encoder is not None else None
    no_loss = encoded.no_loss if encoded is not None else decoded.no_loss
    kept = len(decoded.turns) - (encoded.turns_cut if encoded is not None else 0)
    states = ["masked" if no_loss else "trained" if place < kept else "cut" for place in range(len(decoded.turns))]
    turns = tuple(
        ShownTurn(sentences(turn.question), sentences(turn.answer), state)
        for turn, state in zip(decoded.turns, states, strict=True)
    )
    outlines = {number: outline(mask) for number, mask in first_masks(stored).items()}
    pictures = [
        ([one for one in regions if one.picture == place], pixels) for place, pixels in enumerate(decoded.pictures)
    ]
    warnings = [*decoded.problems, *undrawn(decoded.turns, len(regions))]
    irregular = bool(warnings)
    if no_loss:
        warnings.insert(0, f"nothing of this sample is trained on: {no_loss}")
    if "cut" in states:
        warnings.append(f"{states.count('cut')} of {len(states)} turns are beyond max_seq_len and cut")
    warnings += [f"mask {number}: damaged, not drawn" for number, drawn in outlines.items() if drawn is None]
    return ShownSample(
        id=decoded.id,
        generation=generation,
        pictures=tuple(
            show_picture(pixels, own if draw_bboxes else [], stored.get("annotation_size"), outlines)
            for own, pixels in pictures
        ),
        turns=turns,
        warnings=tuple(warnings),
        entry=json.dumps({key: plain(value) for key, value in stored.items() if key not in NOT_SHOWN}, indent=1),
        tokens=count_tokens(encoder, encoded.input_ids, encoded.labels) if encoder and encoded else None,
        truncated=encoded is not None and encoded.turns_cut > 0,
        irregular=irregular,
    )


def show_picture(
    pixels: np.ndarray,
    regions: list[Region],
    annotated: Sequence[int] | None,
    outlines: Mapping[int, tuple[str, int, int] | None],
) -> ShownPicture:
    """A picture (H, W, 3) uint8 with the regions of its annotation, which is of (height, width)."""
    size = pixels.shape[1], pixels.shape[0]
    scaled = scale_regions(regions, annotated, size)
    shown = tuple(shown_region(one.number, one.box, outlines.get(one.number), size) for one in scaled)
    return ShownPicture(data_address(Image.fromarray(pixels)), *size, shown)


def plain(value: Any) -> Any:
    """A column's value as JSON has it."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def sentences(text: str) -> tuple[Sentence, ...]:
    """The sentences of a text, each with the regions that it names, once each."""
    return tuple(Sentence(one, tuple(dict.fromkeys(named(one)))) for one in SENTENCE.split(text))


def named(text: str) -> list[int]:
    """The numbers of the regions that a text names; a number of thousands of digits is none."""
    return [int(number) for number in CITATION.findall(text) if len(number) <= LONGEST_NUMBER]


def undrawn(turns: Sequence[Turn], count: int) -> list[str]:
    """A line for each region that is named and has no box."""
    numbers = {number for turn in turns for text in (turn.question, turn.answer) for number in named(text)}
    return [f"Region [{number}] is named, but has no box" for number in sorted(numbers) if number >= count]


def first_masks(stored: Mapping[str, Any]) -> dict[int, Any]:
    """Region number to the mask of its first mention; {} where the data set keeps none (``convert.keep_masks``)."""
    masks: dict[int, Any] = {}
    for number, mask in zip(mention_numbers(stored["bbox"], box_owners(stored)), stored.get(MASKS) or (), strict=False):
        masks.setdefault(number, mask)
    return masks


def shown_region(
    number: int, box: Sequence[float], mask: tuple[str, int, int] | None, size: tuple[int, int]
) -> ShownRegion:
    """A region with its sides in order, and its mask over a picture of (width, height)."""
    (left, right), (top, bottom) = sorted((box[0], box[2])), sorted((box[1], box[3]))
    path, across, down = mask or ("", 1, 1)
    stretch = f"scale({size[0] / across:.6g} {size[1] / down:.6g})" if path else ""
    return ShownRegion(number, left, top, right - left, bottom - top, COLOURS[number % len(COLOURS)], path, stretch)


def count_tokens(encoder: SampleEncoder, ids: Sequence[int], labels: Sequence[int]) -> Tokens:
    """Tokens by kind."""
    from theworld.labels import IGNORE

    processor = encoder.processor
    soft = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    worlds = set(processor.world_token_ids) if processor.enable_world else set()
    image = sum(one == soft for one in ids)
    world = sum(one in worlds for one in ids)
    return Tokens(len(ids) - image - world, image, world, sum(label != IGNORE for label in labels))


def data_address(image: Image.Image) -> str:
    """The picture, no larger than the page needs, as an address that holds it."""
    small, packed = image.copy(), io.BytesIO()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    small.save(packed, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(packed.getvalue()).decode()
