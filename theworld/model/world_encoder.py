"""Pictures to world latents: the encoder half of the Cosmos VAE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from theworld.errors import UserError, first_line
from theworld.model.base import Base
from theworld.model.check_model import VAE_CHANNELS, VAE_STRIDE
from theworld.model.pixels import to_unit_range
from theworld.model.require import require
from theworld.model.vae_class import vae_class

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
        kind = vae_class()
        vae = kind.from_config({k: v for k, v in vae_config.items() if not k.startswith("_")})
        assert isinstance(vae, kind)
        self.vae = encoder_only(vae)
        # Plain numbers and not buffers: a model that is cast to bfloat16 must not round them.
        self.mean: list[float] = vae_config["latents_mean"]
        self.std: list[float] = vae_config["latents_std"]

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S), uint8 or floats in [-1, 1], to normalised latents (B, 16, S/8, S/8), float32.

        Raises:
            ValueError: pixels of another shape, type or range; floats in [0, 255] and NaN among them.
        """
        is_bytes = pixels.dtype == torch.uint8
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not (is_bytes or pixels.is_floating_point()):
            raise ValueError(
                f"world pixels: expected uint8 or floats of shape (B, 3, S, S), got {pixels.dtype} of shape "
                f"{tuple(pixels.shape)}"
            )
        if is_bytes:
            pixels = to_unit_range(pixels)
        else:
            in_range = (pixels.abs() <= 1 + RANGE_SLACK).all()
            require(in_range, "world pixels: expected values in [-1, 1]; pass them through the processor")
        weight = next(self.vae.parameters())
        trains = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        with torch.set_grad_enabled(trains):
            mode = self.vae.encode(pixels.to(weight.dtype).unsqueeze(2)).latent_dist.mode()
            latents = mode.squeeze(2).float()
            mean, std = (latents.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
            return (latents - mean) / std

    def load_vae(self, vae: nn.Module) -> None:
        """Copy encoder and ``quant_conv`` from a loaded ``AutoencoderKLWan``; all weights must fit."""
        self.vae.load_state_dict(encoder_only(vae).state_dict(), strict=True)


def encoder_only(vae: Any) -> Any:
    """The same VAE without what only decoding needs (more than half of its 127 M parameters)."""
    for name in ("decoder", "post_quant_conv"):
        if getattr(vae, name, None) is not None:
            delattr(vae, name)
    return vae


def read_vae_config(folder: Path) -> dict[str, Any]:
    """The VAE's configuration with all defaults filled in.

    Raises:
        UserError: it is not an ``AutoencoderKLWan`` of 16 channels and stride 8.
    """
    raw = vae_class().load_config(folder)
    assert isinstance(raw, dict)
    kind = raw.get("_class_name", "AutoencoderKLWan")
    if kind != "AutoencoderKLWan":
        raise UserError(f"model.cosmos: {folder} holds a {kind}; expected an AutoencoderKLWan")
    with torch.device("meta"):
        full = dict(vae_class().from_config(raw).config)  # type: ignore[union-attr]
    config = {key: value for key, value in full.items() if not key.startswith("_")}
    stride = 2 ** (len(config["dim_mult"]) - 1) * (config.get("patch_size") or 1)
    if (config["z_dim"], stride) != (VAE_CHANNELS, VAE_STRIDE):
        raise UserError(
            f"model.cosmos: {folder} makes latents of {config['z_dim']} channels at stride {stride}; "
            f"expected {VAE_CHANNELS} at {VAE_STRIDE}, as Cosmos-Predict2's VAE"
        )
    return config


def load_world_encoder(folder: Path, vae_config: dict[str, Any] | None = None) -> WorldEncoder:
    """The encoder of the VAE in ``folder``, in float32 and eval mode.

    Args:
        folder: ``config.json`` and weights of an ``AutoencoderKLWan``.
        vae_config: its configuration, if it was read before.

    Raises:
        UserError: it is another kind of VAE, or a weight of the encoder is missing or of another shape.
    """
    encoder = WorldEncoder(vae_config or read_vae_config(folder))
    try:
        loaded, info = vae_class().from_pretrained(folder, output_loading_info=True, low_cpu_mem_usage=False)  # type: ignore[misc]
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"model.cosmos: cannot load {folder}: {first_line(error)}") from error
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if wrong:
        raise UserError(f"model.cosmos: {folder}: {len(wrong)} weights missing or unexpected, for example {wrong[0]}")
    encoder.load_vae(loaded)
    return encoder.eval().requires_grad_(False)


def attach_world_encoder(model: Any, vae: Base, dtype: torch.dtype) -> None:
    """Give ``model``, a ``TheWorldForConditionalGeneration``, the encoder of the VAE in ``vae.folder``.

    Raises:
        UserError: a weight of the encoder is missing or of another shape.
    """
    device = next(model.parameters()).device
    model.model.world_encoder = load_world_encoder(vae.folder, model.config.vae).to(device=device, dtype=dtype)
    model.config.with_world_encoder = True
    model.config.base["cosmos"] = vae.record()
