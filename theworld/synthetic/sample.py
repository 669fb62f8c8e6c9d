"""One entry of the built-in sample: what the JSON says of it, and its picture."""

from __future__ import annotations

import functools
import hashlib
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from theworld.synthetic.dialogue import Turn, converse
from theworld.synthetic.paint import encode, paint
from theworld.synthetic.picture_caption import caption
from theworld.synthetic.scene import Region, Scene, compose

_PROFILE_SHARE = 0.3
_EXCEEDING_SHARE = 0.25


@dataclass(frozen=True)
class Sample:
    """Ground truth of one entry.

    Attributes:
        filename: 16 hexadecimal characters.
        scene: the geometry.
        turns: questions, answers and the regions they mention.
        seed, index, size: what it was made from.
    """

    filename: str
    scene: Scene
    turns: tuple[Turn, ...]
    seed: int
    index: int
    size: int

    @property
    def mentions(self) -> list[Region]:
        """The region of each ``<mask>``, through the whole conversation."""
        return [region for turn in self.turns for region in turn.mentions]

    def entry(self) -> dict[str, Any]:
        """The entry as OpenSpatialDataset has it: ``filename, conversations, rle, bbox``, in this order."""
        conversations = []
        for number, turn in enumerate(self.turns):
            start = "<image>\n" if number == 0 else ""
            conversations.append({"from": "human", "value": start + turn.question})
            conversations.append({"from": "gpt", "value": turn.answer})
        rng = random.Random(f"{self.seed}/{self.index}/boxes")
        mentioned = {region.index: region for region in self.mentions}
        boxes = {k: _loose_box(mentioned[k], self.scene, rng) for k in sorted(mentioned)}
        masks = {k: _rle(mentioned[k], self.scene) for k in mentioned}
        order = [region.index for region in self.mentions]
        return {
            "filename": self.filename,
            "conversations": conversations,
            "rle": [masks[k] for k in order],
            "bbox": [boxes[k] for k in order],
        }

    def caption_entry(self) -> dict[str, Any]:
        """The entry of a set of pictures with captions: ``id, image, caption``, without regions."""
        return {"id": self.filename, "image": f"{self.filename}.jpg", "caption": caption(self.scene)}

    def jpeg(self) -> bytes:
        """The picture: a baseline JPEG, of 300 kB on average at 1024 pixels."""
        rng = random.Random(f"{self.seed}/{self.index}/paint")
        grain = min(max(rng.lognormvariate(2.55, 0.7), 1.5), 36.0)
        quality = round(rng.triangular(78, 98, 94))
        with_profile = rng.random() < _PROFILE_SHARE
        return encode(paint(self.scene, rng, grain), self.scene.gray, quality, with_profile)


def describe(seed: int, index: int, size: int = 1024) -> Sample:
    """The ground truth of sample ``index``; it depends on nothing but the three arguments.

    Args:
        seed: of the sample set.
        index: place in the JSON, from 0.
        size: longest side of the picture in pixels.
    """
    scene = compose(random.Random(f"{seed}/{index}/scene"), size)
    turns = converse(scene, random.Random(f"{seed}/{index}/talk"))
    return Sample(filename(seed, index), scene, tuple(turns), seed, index, size)


def filename(seed: int, index: int) -> str:
    """16 hexadecimal characters, in no order, and different for every index below 2**64.

    SplitMix64 (Steele, Lea, Flood 2014) maps 64-bit numbers one to one.
    """
    mixed = (_seed_start(seed) + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
    return f"{mixed ^ (mixed >> 31):016x}"


@functools.lru_cache(maxsize=4)
def _seed_start(seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"theworld/{seed}".encode()).digest()[:8], "big")


def _loose_box(region: Region, scene: Scene, rng: random.Random) -> list[float]:
    """The visible extent as a detector would give it: float32, a little loose.

    At the picture's border it ends there, and in a share of cases exceeds it slightly.
    """
    limits = (0.0, 0.0, float(scene.width), float(scene.height))
    loose = []
    for side, edge in enumerate(region.box):
        outwards = -1.0 if side < 2 else 1.0
        value = edge + outwards * rng.uniform(0.02, 1.8) * max(scene.width, scene.height) / 1024
        beyond = (value - limits[side]) * outwards > 0
        if beyond and rng.random() >= _EXCEEDING_SHARE:
            value = limits[side]
        loose.append(float(np.float32(value)))
    return loose


def _rle(region: Region, scene: Scene) -> dict[str, object]:
    """Compressed COCO run lengths of the region's visible pixels."""
    x0, y0, x1, y1 = region.box
    # COCO masks are column-major: fill the transposed array and hand over its transpose.
    columns = np.zeros((scene.width, scene.height), dtype=np.uint8)
    columns[x0:x1, y0:y1] = np.equal(scene.labels[y0:y1, x0:x1].T, region.index + 1)
    counts = coco_mask.encode(columns.T)["counts"]
    # The library's stubs promise str, the library gives bytes.
    return {
        "size": [scene.height, scene.width],
        "counts": str(counts, "ascii") if isinstance(counts, bytes) else counts,
    }
