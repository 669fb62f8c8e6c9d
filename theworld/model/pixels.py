"""From pictures as bytes to the numbers that the model's parts see: in the processor and, in training, on the GPU.

Both sides call the same functions with the same operations in the same order, each of which IEEE 754 rounds alike on
every device, so that it makes no difference where a picture is normalised.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def normalize(pixels: Tensor, mean: Sequence[float], std: Sequence[float], rescale_factor: float) -> Tensor:
    """Gemma 3's pixels: uint8 (B, 3, H, W) to ``(pixels * rescale_factor - mean) / std``, float32."""
    result = pixels.to(torch.float32)
    # A channel at a time by plain numbers: a tensor of three would have to be copied to the GPU, and waited for.
    for channel, (offset, scale) in enumerate(zip(mean, std, strict=True)):
        result[:, channel].mul_(rescale_factor / scale).sub_(offset / scale)
    return result


def to_unit_range(pixels: Tensor) -> Tensor:
    """The VAE's pixels: uint8 of any shape to float32 in [-1, 1]."""
    # CUDA multiplies by the reciprocal of a Python number, which rounds differently; it divides by a tensor.
    half = torch.full((), 127.5, device=pixels.device)
    return pixels.to(torch.float32).div_(half).sub_(1.0)
