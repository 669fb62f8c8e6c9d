"""The box round a mask, against pycocotools; what is no mask gives none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from theworld.data.entries.rle_runs import mask_box


def box_by_coco(mask: Any) -> list[float]:
    x, y, width, height = map(float, coco_mask.toBbox(mask))
    return [x, y, x + width, y + height]


@pytest.mark.parametrize("seed", range(40))
def test_the_box_is_that_of_pycocotools(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 60, 2)
    pixels = np.zeros((height, width), np.uint8, order="F")
    if seed % 2:
        pixels[random.integers(0, height), random.integers(0, width)] = 1
        top, left = random.integers(0, height), random.integers(0, width)
        pixels[top : top + random.integers(1, 20), left : left + random.integers(1, 20)] = 1
    else:
        pixels[:] = random.random((height, width)) < 0.02 * (seed + 1)
    if not pixels.any():
        pixels[-1, -1] = 1
    packed: Any = coco_mask.encode(pixels)
    rows, columns = np.nonzero(pixels)
    expected = [float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)]
    assert mask_box({"size": packed["size"], "counts": packed["counts"].decode()}) == expected == box_by_coco(packed)
    flat = pixels.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    plain = [0, *counts] if flat[0] else counts
    assert mask_box({"size": [int(height), int(width)], "counts": plain}) == expected


@pytest.mark.parametrize(
    "mask",
    [
        None,
        5,
        {},
        {"size": [4, 4], "counts": ""},
        {"size": [4, 4], "counts": []},
        {"size": [4, 4], "counts": [16]},
        {"size": [4, 4], "counts": [16, 0]},
        {"size": [4, 4], "counts": [20, -4]},
        {"size": [4, 4], "counts": ["a"]},
        {"size": [4], "counts": [16]},
        {"size": [0, 4], "counts": [0]},
        {"size": [4, 4], "counts": "ooooooooooooooo"},
        {"size": [4, 4], "counts": "\ud83d"},
        {"size": [10**30, 4], "counts": [1, 1]},
        {"size": [2**31, 2**31], "counts": [2**62 - 1, 1, 2**63]},
    ],
)
def test_what_is_no_mask_has_no_box(mask: Any) -> None:
    assert mask_box(mask) is None
