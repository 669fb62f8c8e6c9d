"""Learned queries that read a world latent by cross-attention, however large it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

WIDTH = 512
"""Features of a query; less where the language model is narrower."""
HEAD = 64
"""Features of an attention head."""


class Resampler(nn.Module):
    """Latents (B, C, h, w) to features (B, N, width): one cross-attention of N learned queries over the positions.

    What a query has read is normalised, so that features have unit variance whatever the latents' own.

    Args:
        channels, side: C and h = w of the latent.
        queries: N.
        hidden_size: width of the language model, which the features are not to exceed.
    """

    def __init__(self, channels: int, side: int, queries: int, hidden_size: int) -> None:
        super().__init__()
        self.width = min(WIDTH, hidden_size)
        self.heads = max(1, self.width // HEAD)
        if self.width % self.heads:
            raise ValueError(f"hidden_size: {hidden_size} does not divide into {self.heads} heads")
        self.side = side
        self.queries = nn.Parameter(torch.zeros(queries, self.width))
        self.positions = nn.Parameter(torch.zeros(side**2, self.width))
        self.read = nn.Linear(channels, 2 * self.width)
        self.norm = nn.LayerNorm(self.width)

    def forward(self, latents: Tensor) -> Tensor:
        """Features (B, N, width) of latents (B, C, h, w)."""
        read = self.read(latents.flatten(2).transpose(1, 2).to(self.read.weight.dtype))
        keys, values = read.chunk(2, dim=-1)
        keys = keys + self.positions.to(keys.dtype)
        queries = self.queries.to(keys.dtype).expand(len(latents), -1, -1)
        # Values carry the place as well: what was seen says little without where.
        values = values + self.positions.to(values.dtype)
        found = scaled_dot_product_attention(self._in_heads(queries), self._in_heads(keys), self._in_heads(values))
        return self.norm(found.transpose(1, 2).flatten(2))

    def _in_heads(self, features: Tensor) -> Tensor:
        return features.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights; positions begin as sines and cosines of row and column, so that near ones are alike."""
        std = 1 / math.sqrt(self.read.in_features)
        self.read.weight.copy_(torch.empty(self.read.weight.shape).normal_(0.0, std, generator=generator))
        self.read.bias.zero_()
        self.queries.copy_(torch.empty(self.queries.shape).normal_(0.0, 1.0, generator=generator))
        self.positions.copy_(waves(self.side, self.width))
        self.norm.weight.fill_(1.0)
        self.norm.bias.zero_()


def waves(side: int, width: int) -> Tensor:
    """(side * side, width): sines and cosines of each position's row and column, row by row, of unit variance."""
    count = math.ceil(width / 4)
    lengths = side ** (torch.arange(count) / max(count - 1, 1))
    angles = 2 * math.pi * torch.arange(side)[:, None] / (2 * lengths)
    along = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = along[:, None].expand(side, side, -1)
    columns = along[None].expand(side, side, -1)
    return math.sqrt(2) * torch.cat([rows, columns], dim=-1).flatten(0, 1)[:, :width]
