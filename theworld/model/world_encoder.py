"""Pictures to world latents: the encoder half of the Cosmos VAE."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

RANGE_SLACK = 1e-3
"""How far beyond [-1, 1] a pixel may lie by rounding (bfloat16 and resampling stay well inside)."""


class WorldEncoder(nn.Module):
    """The encoder of a diffusers ``AutoencoderKLWan``, one picture at a time seen as a video of one frame.

    The latent is the mode of the posterior, not a sample, so that a picture always gives the same tokens, and is
    normalised with the VAE's own ``latents_mean`` and ``latents_std``: ``encode`` alone does not do that.

    Args:
        vae_config: the VAE's configuration, as in its ``config.json``.
    """

    def __init__(self, vae_config: dict[str, Any]) -> None:
        super().__init__()
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

        vae = AutoencoderKLWan.from_config({k: v for k, v in vae_config.items() if not k.startswith("_")})
        assert isinstance(vae, AutoencoderKLWan)
        self.vae = encoder_only(vae)
        # Plain numbers and not buffers: a model that is cast to bfloat16 must not round them.
        self.mean: list[float] = vae_config["latents_mean"]
        self.std: list[float] = vae_config["latents_std"]

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in [-1, 1] to normalised latents (B, 16, S/8, S/8), float32.

        Raises:
            ValueError: pixels of another shape or range; [0, 255] and NaN among them.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
            raise ValueError(f"world pixels: expected floats of shape (B, 3, S, S), got {tuple(pixels.shape)}")
        if not bool((pixels.abs() <= 1 + RANGE_SLACK).all()):
            raise ValueError("world pixels: expected values in [-1, 1]; pass them through the processor")
        weight = next(self.vae.parameters())
        trains = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        with torch.set_grad_enabled(trains):
            mode = self.vae.encode(pixels.to(weight.dtype).unsqueeze(2)).latent_dist.mode()
            latents = mode.squeeze(2).float()
            mean, std = (latents.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
            return (latents - mean) / std

    def load_vae(self, vae: nn.Module) -> None:
        """Take over encoder and ``quant_conv`` of a loaded ``AutoencoderKLWan``; all weights must fit."""
        self.vae.load_state_dict(encoder_only(vae).state_dict(), strict=True)


def encoder_only(vae: Any) -> Any:
    """The same VAE without what only decoding needs (more than half of its 127 M parameters)."""
    for name in ("decoder", "post_quant_conv"):
        if getattr(vae, name, None) is not None:
            delattr(vae, name)
    return vae
