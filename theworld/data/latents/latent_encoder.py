"""MDS sample -> world latent, in the way that training does it without latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from theworld.data.latents.record import LatentRecord
from theworld.data.samples import decode_sample
from theworld.errors import UserError
from theworld.model.check_model import VAE_CHANNELS, VAE_STRIDE
from theworld.model.processing import Picture, world_pictures


def sample_pixels(sample: Mapping[str, Any], record: LatentRecord) -> Tensor:
    """The world picture (3, S, S) uint8; grey where the image cannot be decoded, as in training.

    Raises:
        UserError: the sample has no picture, or several.
    """
    pictures = decode_sample(sample, record.draw_bboxes).pictures
    if len(pictures) != 1:
        raise UserError(
            f"sample {sample['id']} has {len(pictures)} pictures, and a stored world latent is of one: train without "
            "latents (they are computed), or convert with convert.world_latents=true, which leaves such samples out"
        )
    return picture_pixels(pictures[0], record)


def picture_pixels(picture: Picture, record: LatentRecord) -> Tensor:
    return world_pictures([picture], record.world_image_size)[0]


def to_bytes(latents: Tensor) -> list[bytes]:
    """Latents (B, 16, h, w) as bfloat16, row by row, little endian."""
    return [latent.contiguous().view(torch.int16).numpy().tobytes() for latent in latents.to("cpu", torch.bfloat16)]


def from_bytes(data: bytes) -> Tensor:
    """What :func:`to_bytes` made: (1, 16, h, w) bfloat16.

    Raises:
        ValueError: not as long as a square latent of 16 channels.
    """
    values = torch.frombuffer(bytearray(data), dtype=torch.bfloat16)
    side = round((len(values) / VAE_CHANNELS) ** 0.5)
    if side * side * VAE_CHANNELS != len(values):
        raise ValueError(f"world latent: {len(data)} bytes are not a square latent of {VAE_CHANNELS} channels")
    return values.view(1, VAE_CHANNELS, side, side)


def empty_latent(world_image_size: int) -> bytes:
    """A latent of zeros of the right size, for a sample that carries no loss."""
    return bytes(VAE_CHANNELS * (world_image_size // VAE_STRIDE) ** 2 * torch.bfloat16.itemsize)


class LatentEncoder:
    """The VAE's encoder in float32 on one device.

    Args:
        folder: of the VAE (``config.json`` and weights).
        device: where to compute.
    """

    def __init__(self, folder: Path, device: str) -> None:
        from theworld.model.world_encoder import load_world_encoder

        self.device = torch.device(device)
        self.encoder = load_world_encoder(folder).to(self.device)

    @torch.no_grad()
    def __call__(self, pixels: Tensor | Sequence[Tensor]) -> list[bytes]:
        """World pictures (B, 3, S, S), uint8, to their latents, as bytes."""
        batch = pixels if isinstance(pixels, Tensor) else torch.stack(list(pixels))
        return to_bytes(self.encoder(batch.to(self.device, non_blocking=True)))
