"""World latents to tokens of the language model's width."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from theworld.model.check_model import count_world_tokens
from theworld.model.resampler import Resampler

GELU_SECOND_MOMENT = 0.4252
"""E[gelu(x)^2] for x ~ N(0, 1): the power that a unit-variance input has left after the activation."""


class WorldProjector(nn.Module):
    """Latents (B, C, h, w) to token features (B, N + 2, hidden), the start and end of the world included.

    Modes: ``spatial``, a token per position (features C); ``channel``, a token per channel (features h*w);
    ``patch``, a token per patch of p x p positions (features C*p*p); ``pool``, a token per such patch (features 2*C:
    the least and the greatest value of each channel in it); ``resampler``, a token per learned query (features: see
    :class:`~theworld.model.resampler.Resampler`). Architectures: ``linear``, or ``mlp`` with two layers and a GELU
    between them. Nothing follows the last layer.

    The start and end vectors are parameters here and not rows of the embedding, because the embedding is usually
    frozen, and shared with the output head.

    Args:
        mode, architecture, patch: see above.
        queries: of the mode ``resampler``.
        channels, side: C and h = w of the latent.
        hidden_size: width of the language model.
    """

    def __init__(
        self, mode: str, architecture: str, patch: int, channels: int, side: int, hidden_size: int, queries: int = 64
    ) -> None:
        super().__init__()
        self.mode = mode
        self.patch = patch
        self.channels = channels
        self.side = side
        self.num_tokens = count_world_tokens(mode, patch, side, queries, channels)
        self.resampler = Resampler(channels, side, queries, hidden_size) if mode == "resampler" else None
        self.num_features = self._count_features()
        layers: list[nn.Module] = [nn.Linear(self.num_features, hidden_size)]
        if architecture == "mlp":
            layers += [nn.GELU(), nn.Linear(hidden_size, hidden_size)]
        self.layers = nn.Sequential(*layers)
        self.start = nn.Parameter(torch.zeros(hidden_size))
        self.end = nn.Parameter(torch.zeros(hidden_size))

    def _count_features(self) -> int:
        if self.resampler is not None:
            return self.resampler.width
        if self.mode == "pool":
            return 2 * self.channels
        return self.channels * self.side**2 // self.num_tokens

    def features(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) to features (B, N, num_features); positions go row by row.

        Raises:
            ValueError: the latents have another shape than the model was built for.
        """
        expected = (self.channels, self.side, self.side)
        if latents.ndim != 4 or tuple(latents.shape[1:]) != expected:
            raise ValueError(f"world latents: expected (B, {expected}), got {tuple(latents.shape)}")
        if self.mode == "channel":
            return latents.flatten(2)
        if self.mode == "spatial":
            return latents.flatten(2).transpose(1, 2)
        if self.resampler is not None:
            return self.resampler(latents)
        batch, channels, height, width = latents.shape
        p = self.patch
        split = latents.reshape(batch, channels, height // p, p, width // p, p)
        patches = split.permute(0, 2, 4, 1, 3, 5).reshape(batch, self.num_tokens, channels, p * p)
        if self.mode == "pool":
            return torch.cat([patches.amin(-1), patches.amax(-1)], dim=-1)
        return patches.flatten(2)

    def forward(self, latents: Tensor) -> Tensor:
        """Features (B, N + 2, hidden): start, world tokens, end."""
        tokens = self.layers(self.features(latents).to(self.start.dtype))
        start, end = (vector.to(tokens.dtype).expand(len(tokens), 1, -1) for vector in (self.start, self.end))
        return torch.cat([start, tokens, end], dim=1)

    @torch.no_grad()
    def reset_parameters(self, rms: float, generator: torch.Generator | None = None) -> None:
        """Draw the weights so that latents of unit variance become tokens with a root mean square of ``rms``.

        ``rms`` is that of the language model's scaled embeddings: the first layers then see world tokens of the size
        of words, which keeps gradient norms at step 0 in the range of the other tokens'.
        """
        if self.resampler is not None:
            self.resampler.reset_parameters(generator)
        first_moment = second_moment_of_extreme(self.patch**2) if self.mode == "pool" else 1.0
        linears = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        for layer in linears:
            last = layer is linears[-1]
            second_moment = GELU_SECOND_MOMENT if layer is not linears[0] else first_moment
            std = (rms if last else 1.0) / math.sqrt(layer.in_features * second_moment)
            # On the CPU: the generator lives there, and every rank then draws the same whatever its device.
            layer.weight.copy_(torch.empty(layer.weight.shape).normal_(0.0, std, generator=generator))
            layer.bias.zero_()
        for vector in (self.start, self.end):
            vector.copy_(torch.empty(vector.shape).normal_(0.0, rms, generator=generator))


def second_moment_of_extreme(count: int) -> float:
    """E[x^2] of the greatest of ``count`` independent values of unit variance, which is that of the least as well."""
    x = torch.linspace(-9, 9, 10_001, dtype=torch.float64)
    normal = torch.distributions.Normal(torch.zeros_like(x[0]), torch.ones_like(x[0]))
    density = count * normal.log_prob(x).exp() * normal.cdf(x) ** (count - 1)
    return float(torch.trapezoid(x**2 * density, x))
