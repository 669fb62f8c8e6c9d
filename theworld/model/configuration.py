"""TheWorld's configuration: Gemma 3's, and what the world tokens are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import Gemma3Config

from theworld.compat import share_weight_names
from theworld.model.check_model import VAE_CHANNELS, VAE_STRIDE, count_world_tokens

START_OF_WORLD = "<start_of_world>"
END_OF_WORLD = "<end_of_world>"
WORLD_TOKEN = "<world_soft_token>"
WORLD_TOKENS = (START_OF_WORLD, END_OF_WORLD, WORLD_TOKEN)
"""The special tokens that the processor adds after the tokenizer's own, in this order."""


class TheWorldConfig(Gemma3Config):
    """Gemma 3 with world tokens from the encoder of an ``AutoencoderKLWan``.

    Args:
        enable_world: whether the model has a world path; without it the model is plain Gemma 3.
        vae: the VAE's own configuration (including ``latents_mean`` and ``latents_std``).
        world_image_size: side in pixels of the square picture that the VAE sees.
        projector_mode: ``spatial``, ``channel``, ``patch``, ``pool`` or ``resampler``.
        projector_architecture: ``mlp`` or ``linear``.
        projector_patch: side of a patch in latent positions, for modes ``patch`` and ``pool``.
        projector_queries: learned queries, for mode ``resampler``.
        start_of_world_token_id, end_of_world_token_id, world_token_id: ids of the tokenizer's world tokens.
        with_world_encoder: whether the model holds the VAE's encoder; without it, it takes latents only.
        partial_weights: whether the file beside it holds only what was trained; the rest comes from ``base``.
        lora: the adapters, as the YAML's ``model.lora`` has them; None: the model has none.
        image_mean, image_std, image_rescale_factor: the image processor's, by which ``pixel_values`` of bytes are
            normalised in the model. The defaults are Gemma 3's.
        base: where the weights came from: ``{"gemma": {"name", "revision"}, "cosmos": {"name", "revision"}}``.
        kwargs: Gemma 3's own.
    """

    model_type = "theworld"

    def __init__(
        self,
        enable_world: bool = False,
        vae: dict[str, Any] | None = None,
        world_image_size: int = 512,
        projector_mode: str = "patch",
        projector_architecture: str = "mlp",
        projector_patch: int = 4,
        projector_queries: int = 64,
        start_of_world_token_id: int | None = None,
        end_of_world_token_id: int | None = None,
        world_token_id: int | None = None,
        with_world_encoder: bool = True,
        partial_weights: bool = False,
        base: dict[str, Any] | None = None,
        lora: dict[str, Any] | None = None,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        image_rescale_factor: float = 1 / 255,
        **kwargs: Any,
    ) -> None:
        self.enable_world = enable_world
        self.vae = vae or {}
        self.world_image_size = world_image_size
        self.projector_mode = projector_mode
        self.projector_architecture = projector_architecture
        self.projector_patch = projector_patch
        self.projector_queries = projector_queries
        self.start_of_world_token_id = start_of_world_token_id
        self.end_of_world_token_id = end_of_world_token_id
        self.world_token_id = world_token_id
        self.with_world_encoder = with_world_encoder
        self.partial_weights = partial_weights
        self.base = base or {}
        self.lora = lora
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.image_rescale_factor = image_rescale_factor
        super().__init__(**kwargs)

    @property
    def latent_channels(self) -> int:
        """Channels of a world latent."""
        return int(self.vae.get("z_dim", VAE_CHANNELS))

    @property
    def latent_side(self) -> int:
        """Height and width of a world latent."""
        return self.world_image_size // VAE_STRIDE

    @property
    def num_world_tokens(self) -> int:
        """World tokens of one picture, start and end not counted; 0 without a world path."""
        if not self.enable_world:
            return 0
        return count_world_tokens(
            self.projector_mode, self.projector_patch, self.latent_side, self.projector_queries, self.latent_channels
        )

    @property
    def world_token_ids(self) -> tuple[int, int, int]:
        """Ids of start, end and soft token.

        Raises:
            ValueError: the world path is on but the ids were not set.
        """
        ids = (self.start_of_world_token_id, self.end_of_world_token_id, self.world_token_id)
        if any(token is None for token in ids):
            raise ValueError("enable_world is true but the ids of the world tokens are not set in the configuration")
        return ids  # type: ignore[return-value]


share_weight_names(TheWorldConfig.model_type)
