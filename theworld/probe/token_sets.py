"""Latents as the tokens that each projector mode makes of them, before any weight is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from theworld.config.schema import ProjectorConfig
from theworld.model.check_model import PROJECTOR_MODES, VAE_CHANNELS, VAE_STRIDE
from theworld.model.pixels import to_unit_range
from theworld.model.projector import WorldProjector
from theworld.model.resampler import WIDTH

IN_PLACE, MIXED = "in place", "mixed"


@dataclass(frozen=True)
class Reading:
    """What a linear reader is given of each picture: (pictures, values), float64.

    Attributes:
        source: a projector mode, or a baseline.
        way: ``in place``, all tokens in their order; ``mixed``, their mean, which has lost which token said what.
        tokens, width: of a picture, and features of each.
        values: the features.
    """

    source: str
    way: str
    tokens: int
    width: int
    values: Tensor


def readings(latents: Tensor, pixels: Tensor, projector: ProjectorConfig, seed: int) -> Iterator[Reading]:
    """Every mode's tokens and two baselines of the VAE's resolution, each in place and mixed, one after the other.

    ``pixels``: the mean colour of each 8 x 8 pixels; ``random``: as many channels as the latent has, each a random
    filter over the same pixels, rectified.

    Args:
        latents: (B, C, h, w).
        pixels: the pictures that they were made from, (B, 3, 8 h, 8 w) uint8.
        projector: patch and queries.
        seed: of the filters and of the resampler's weights.
    """
    for mode in PROJECTOR_MODES:
        yield from both_ways(mode, mode_tokens(mode, latents, projector, seed))
    yield from both_ways("pixels", positions(colours(pixels)))
    yield from both_ways("random", positions(filtered(pixels, seed)))


def both_ways(source: str, tokens: Tensor) -> Iterator[Reading]:
    """The readings of tokens (B, N, F)."""
    _, number, width = tokens.shape
    yield Reading(source, IN_PLACE, number, width, tokens.flatten(1).double())
    yield Reading(source, MIXED, number, width, tokens.mean(1).double())


@torch.no_grad()
def mode_tokens(mode: str, latents: Tensor, projector: ProjectorConfig, seed: int) -> Tensor:
    """Tokens (B, N, F) of latents under a mode: what the projector's layers are given."""
    channels, side = latents.shape[1:3]
    made = WorldProjector(mode, "linear", projector.patch, channels, side, WIDTH, projector.queries)
    made.reset_parameters(1.0, torch.Generator().manual_seed(seed))
    return torch.cat([made.features(some) for some in latents.split(64)])


def positions(grid: Tensor) -> Tensor:
    """(B, C, h, w) to a token per position, (B, h * w, C)."""
    return grid.flatten(2).transpose(1, 2)


def colours(pixels: Tensor) -> Tensor:
    """(B, 3, S, S) uint8 to the mean colour per latent position, (B, 3, S/8, S/8) in [-1, 1]."""
    return torch.cat([torch.nn.functional.avg_pool2d(to_unit_range(some), VAE_STRIDE) for some in pixels.split(64)])


def filtered(pixels: Tensor, seed: int) -> Tensor:
    """(B, 3, S, S) uint8 to what random filters answer, (B, 16, S/8, S/8)."""
    shape: Sequence[int] = (VAE_CHANNELS, 3, VAE_STRIDE, VAE_STRIDE)
    filters = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / (3**0.5 * VAE_STRIDE)
    answers = [torch.nn.functional.conv2d(to_unit_range(some), filters, stride=VAE_STRIDE) for some in pixels.split(64)]
    return torch.cat(answers).relu()
