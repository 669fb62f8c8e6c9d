"""JPEG bytes -> pixels, the quick way; what it does not read as Pillow would is left to Pillow."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_jpeg

MODES = ("RGB", "L")
"""Pillow's modes of the pictures that libjpeg turns into RGB as Pillow does; CMYK is not among them."""


def decode_quickly(data: bytes, kind: str | None, mode: str) -> np.ndarray | None:
    """The pixels of a JPEG as they are stored, (H, W, 3) uint8; equal to Pillow's, which uses libjpeg as well.

    torchvision writes into memory that numpy and torch share. Pillow keeps four bytes a pixel, and copies them twice on
    the way to a tensor.

    Args:
        data: the file.
        kind, mode: what Pillow says of its header.

    Returns:
        None if it is no such JPEG, or one that cannot be read to its end: Pillow then says what is wrong with it.
    """
    if kind != "JPEG" or mode not in MODES:
        return None
    try:
        pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except RuntimeError:
        return None
    assert isinstance(pixels, torch.Tensor)
    return pixels.permute(1, 2, 0).numpy()
