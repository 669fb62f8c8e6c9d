"""What can be checked in a model's configuration before torch, transformers or any weight is loaded."""

from __future__ import annotations

from theworld.config.schema import ModelConfig
from theworld.errors import UserError
from theworld.model.check_four_bits import check_four_bits
from theworld.model.check_lora import check_lora

PROJECTOR_MODES = ("spatial", "channel", "patch", "pool", "resampler")
PROJECTOR_ARCHITECTURES = ("mlp", "linear")

FROZEN_DTYPES = (None, "fp32", "bf16")
ATTENTION = ("sdpa", "eager", "flex_attention")

VAE_CHANNELS = 16
"""Channels of a Cosmos latent (``z_dim``)."""
VAE_STRIDE = 8
"""Pixels of the world picture per latent position, along each side."""


def count_world_tokens(mode: str, patch: int, latent_side: int, queries: int = 0, channels: int = VAE_CHANNELS) -> int:
    """How many tokens a latent of shape (channels, latent_side, latent_side) becomes, start and end not counted."""
    if mode == "spatial":
        return latent_side**2
    if mode == "channel":
        return channels
    if mode == "resampler":
        return queries
    return (latent_side // patch) ** 2


def check_model_config(cfg: ModelConfig) -> None:
    """Refuse values of the section ``model`` that cannot work.

    Raises:
        UserError: names the YAML key, the value and what would be right.
    """
    if not cfg.gemma:
        raise UserError("model.gemma is empty; expected a Hub repo, a folder, or builtin:tiny")
    if cfg.frozen_dtype not in FROZEN_DTYPES:
        raise UserError(f"model.frozen_dtype is {cfg.frozen_dtype!r}; expected fp32, bf16 or null")
    check_attention(cfg.attn_implementation)
    check_lora(cfg)
    check_four_bits(cfg)
    if not cfg.enable_world:
        if cfg.freeze.vision and cfg.freeze.language and cfg.lora is None:
            raise UserError(
                "model.enable_world is false and model.freeze.vision and model.freeze.language are true: nothing to "
                "train; set one of the three differently"
            )
        return
    if not cfg.cosmos:
        raise UserError("model.cosmos is empty; expected a Hub repo, a folder, or builtin:tiny")
    freeze = cfg.freeze
    if freeze.vision and freeze.language and freeze.vae and freeze.projector and cfg.lora is None:
        raise UserError("every key of model.freeze is true: nothing to train; set one of them to false")
    projector = cfg.projector
    if projector.mode not in PROJECTOR_MODES:
        raise UserError(f"model.projector.mode is {projector.mode!r}; expected one of {', '.join(PROJECTOR_MODES)}")
    if projector.architecture not in PROJECTOR_ARCHITECTURES:
        raise UserError(
            f"model.projector.architecture is {projector.architecture!r}; "
            f"expected one of {', '.join(PROJECTOR_ARCHITECTURES)}"
        )
    size = cfg.world_image_size
    if size < VAE_STRIDE or size % VAE_STRIDE:
        raise UserError(
            f"model.world_image_size is {size}; expected a multiple of {VAE_STRIDE}, the VAE's stride (512 is usual)"
        )
    side = size // VAE_STRIDE
    if projector.mode in ("patch", "pool") and (projector.patch < 1 or side % projector.patch):
        raise UserError(
            f"model.projector.patch is {projector.patch}; expected a divisor of {side}, "
            f"the side of the latent at model.world_image_size {size}"
        )
    if projector.mode == "resampler" and projector.queries < 1:
        raise UserError(f"model.projector.queries is {projector.queries}; expected 1 or more (64 is usual)")


def check_attention(name: str) -> None:
    """Refuse an attention implementation that would make this a different model.

    Raises:
        UserError: flash attention, or an unknown name.
    """
    if name.startswith("flash_attention"):
        raise UserError(
            f"model.attn_implementation is {name!r}: it takes no mask, and Gemma 3's pictures need one, in which their "
            "tokens see each other in both directions; use sdpa"
        )
    if name not in ATTENTION:
        raise UserError(f"model.attn_implementation is {name!r}; expected one of {', '.join(ATTENTION)}")
