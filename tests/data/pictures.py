"""Pictures for the tests of samples, made in memory."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def jpeg_of(width: int, height: int, seed: int = 1) -> bytes:
    """A JPEG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG")
    return data.getvalue()
