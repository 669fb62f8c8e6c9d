"""Floating-point operations of a training step: what model FLOPs utilisation (MFU) is measured with.

Model FLOPs as PaLM defines them (Chowdhery et al., 2022, appendix B): the matrix products and convolutions that the
mathematics asks for, two operations for a multiplication and an addition, forward and backward; attention over the
full square of the sequence; nothing for what is computed again to save memory, which :attr:`Flops.recomputed` counts
separately. Padding does no useful work and is not counted. A backward pass costs a forward pass for the gradient of the
weights, where they train, and another for the gradient of the inputs, where something before them trains.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from theworld.model.adapters import is_adapter
from theworld.model.configuration import TheWorldConfig
from theworld.model.loss import predicts_answer
from theworld.model.resampler import WIDTH


@dataclass(frozen=True)
class Flops:
    """Operations by part, forward and backward.

    Attributes:
        language: layers, and the output head at the answers.
        vision: SigLIP and Gemma's projection of its features.
        vae: the encoder of the world.
        projector: world latents to tokens.
        recomputed: layers computed again in the backward pass; included in no other figure. The head, also
            computed again for microbatches of more than :data:`~theworld.model.loss.CHUNK_TOKENS` answers, is left out.
    """

    language: float
    vision: float
    vae: float
    projector: float
    recomputed: float

    @property
    def total(self) -> float:
        """Model FLOPs."""
        return self.language + self.vision + self.vae + self.projector

    @property
    def total_with_recomputed(self) -> float:
        """What the hardware does."""
        return self.total + self.recomputed


@dataclass(frozen=True)
class Work:
    """The work in a batch.

    Attributes:
        lengths: tokens of each sample, padding left out.
        answers: tokens that are predicted, for which there are logits.
        pictures: pictures that SigLIP sees.
        worlds: world sequences.
        encoded: of these, those whose latents the VAE has to make.
    """

    lengths: tuple[int, ...]
    answers: int
    pictures: int
    worlds: int
    encoded: int

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> Work:
        """The work of a batch with labels, wherever its tensors are."""
        pictures = batch.get("pixel_values")
        latents, pixels = batch.get("world_latents"), batch.get("world_pixel_values")
        given = latents if latents is not None else pixels
        mask = batch["attention_mask"]
        return cls(
            lengths=tuple(mask.sum(dim=1).tolist()),
            answers=int(predicts_answer(batch["labels"], mask).sum()),
            pictures=0 if pictures is None else len(pictures),
            worlds=0 if given is None else len(given),
            encoded=len(pixels) if latents is None and pixels is not None else 0,
        )


def trained_parts(model: Any) -> frozenset[str]:
    """Names of the parts of a ``TheWorldForConditionalGeneration`` that train, wholly or in part. One that has adapters
    only is none: theirs are some hundredths of the operations of the layers that they are on."""
    parts = {**model.freezable_parts(), "world_projector": model.model.world_projector}
    return frozenset(
        name
        for name, part in parts.items()
        if part is not None and any(one.requires_grad for key, one in part.named_parameters() if not is_adapter(key))
    )


def count_flops(config: TheWorldConfig, trains: Collection[str], work: Work, checkpointing: bool = False) -> Flops:
    """The operations of one forward and backward pass.

    Args:
        config: the model's.
        trains: parts that train, as :func:`trained_parts` names them.
        work: the batch's.
        checkpointing: whether layers are computed again in the backward pass.
    """
    language = _layers(config.text_config, work.lengths)
    head = 2.0 * work.answers * config.text_config.hidden_size * config.text_config.vocab_size
    trains_language = "language_model" in trains
    before_language = bool(set(trains) - {"language_model", "lm_head"})
    vision, vision_again = _vision(config, work.pictures, trains)
    vae, projector = _world(config, work, trains)
    recomputed = 0.0
    if checkpointing:
        recomputed = language.forward + (vision_again if "vision_tower" in trains else 0.0)
    return Flops(
        language=language.step(trains_language, trains_language or before_language)
        + head * (2 + ("lm_head" in trains)),
        vision=vision,
        vae=vae,
        projector=projector,
        recomputed=recomputed,
    )


@dataclass(frozen=True)
class _Layers:
    """Forward operations of layers: in products with weights, and in products of activations (attention)."""

    weights: float
    attention: float

    @property
    def forward(self) -> float:
        return self.weights + self.attention

    def step(self, trains: bool, gradient_flows: bool) -> float:
        """Forward and backward: a product of two activations has two gradients, or none."""
        return self.weights * (1 + trains + gradient_flows) + self.attention * (1 + 2 * gradient_flows)


def _layers(text: Any, lengths: Collection[int]) -> _Layers:
    """Gemma 3's decoder layers: query, key, value and output; gate, up and down; scores and weighted values."""
    queries, keys = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    weights = text.hidden_size * (2 * queries + 2 * keys + 3 * text.intermediate_size)
    return _Layers(
        weights=2.0 * text.num_hidden_layers * weights * sum(lengths),
        attention=4.0 * text.num_hidden_layers * queries * sum(length**2 for length in lengths),
    )


def _vision(config: TheWorldConfig, pictures: int, trains: Collection[str]) -> tuple[float, float]:
    """The operations of the whole way of a picture to its tokens, and those of SigLIP's layers computed again."""
    vision = config.vision_config
    patches = pictures * (vision.image_size // vision.patch_size) ** 2
    weights = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    layers = _Layers(
        weights=2.0 * vision.num_hidden_layers * weights * patches,
        attention=4.0 * vision.num_hidden_layers * vision.hidden_size * patches**2 / max(pictures, 1),
    )
    embedding = 2.0 * patches * vision.num_channels * vision.patch_size**2 * vision.hidden_size
    projection = 2.0 * pictures * config.mm_tokens_per_image * vision.hidden_size * config.text_config.hidden_size
    tower = "vision_tower" in trains
    whole = (
        embedding * (1 + tower)
        + layers.step(tower, tower)
        + projection * (1 + ("multi_modal_projector" in trains) + tower)
    )
    # A layer ends with a product and a sum, which torch does not compute again: nothing needs their result.
    last = 2.0 * vision.num_hidden_layers * vision.hidden_size * vision.intermediate_size * patches
    return whole, layers.forward - last


def _world(config: TheWorldConfig, work: Work, trains: Collection[str]) -> tuple[float, float]:
    """The operations of the VAE's encoder and of the projector."""
    if not work.worlds:
        return 0.0, 0.0
    encoder = "world_encoder" in trains
    vae = 0.0
    if work.encoded:
        forward, first = _vae_forward(json.dumps(config.vae, sort_keys=True), config.world_image_size)
        # Nothing needs the gradient of the picture, so the first convolution has one of its weights only.
        vae = work.encoded * (forward + encoder * (2 * forward - first))
    return vae, _projector(config, work.worlds, encoder, "world_projector" in trains)


def _projector(config: TheWorldConfig, worlds: int, encoder: bool, trains: bool) -> float:
    """The operations of the projector; ``encoder``: whether the VAE before it trains."""
    tokens = worlds * config.num_world_tokens
    hidden, width = config.text_config.hidden_size, _world_features(config)
    resamples = config.projector_mode == "resampler"
    # What a resampler has read needs gradients whatever the latents' origin: it trains itself.
    operations = 2.0 * tokens * width * hidden * (1 + trains + (encoder or (resamples and trains)))
    if config.projector_architecture == "mlp":
        operations += 2.0 * tokens * hidden**2 * (1 + trains + (encoder or trains))
    if resamples:
        positions = config.latent_side**2
        operations += worlds * 2.0 * positions * config.latent_channels * 2 * width * (1 + trains + encoder)
        # Scores and weighted values: two gradients each, but none for queries that do not train.
        backward = 3 + trains if encoder or trains else 0
        operations += 2.0 * tokens * positions * width * (2 + backward)
    return operations


def _world_features(config: TheWorldConfig) -> int:
    """Features of a world token before the projector's layers."""
    if config.projector_mode == "resampler":
        return min(WIDTH, config.text_config.hidden_size)
    if config.projector_mode == "pool":
        return 2 * config.latent_channels
    return config.latent_channels * config.latent_side**2 // config.num_world_tokens


@cache
def _vae_forward(vae_config: str, side: int) -> tuple[float, float]:
    """Operations of encoding one picture, and of the first convolution, counted on tensors without memory.

    Convolutions over time do not meet a single frame, and which those are is the library's affair.
    """
    from theworld.model.world_encoder import WorldEncoder

    with torch.device("meta"), torch.no_grad():
        vae = WorldEncoder(json.loads(vae_config)).vae
        with FlopCounterMode(display=False) as counter:
            vae.encode(torch.empty(1, 3, 1, side, side))
    kernel = vae.encoder.conv_in.weight[0].numel()
    return float(counter.get_total_flops()), 2.0 * kernel * vae.encoder.conv_in.out_channels * side**2
