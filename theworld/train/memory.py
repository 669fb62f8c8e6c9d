"""How much of a GPU's memory a run needs, from its configuration alone.

States (weights, gradients, optimizer) are counted on a model without weights; activations are measured on layers
without data (:mod:`theworld.model.activations`). Nothing is loaded and no GPU is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from theworld.config.schema import Config
from theworld.model.activations import (
    Footprint,
    Precision,
    language_layer,
    loss_chunk,
    vae_encoder,
    vision_layer,
)
from theworld.model.build import load_shapes
from theworld.model.four_bits import bytes_beside, four_bit_layers
from theworld.model.loss import CHUNK_TOKENS

GIB = 2**30
RESERVE = 3 * GIB // 2
"""For the CUDA context, the libraries' workspaces and gaps between blocks. An assumption, not measured."""
STATES_PER_WEIGHT = {"sgd": 1, "decoupled_sgdw": 1}
"""Tensors of a weight's size that an optimizer keeps; Adam and all others: two."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def frozen_dtype(config: Config) -> torch.dtype:
    """The precision that frozen parts are kept in."""
    return DTYPES[config.model.frozen_dtype or ("bf16" if config.precision == "amp_bf16" else "fp32")]


def packed_in(config: Config) -> torch.dtype:
    """How weights in 4 bits are stored. FSDP shards nothing but floats, and those of a unit of one type."""
    return torch.uint8 if sharding(config) is None else frozen_dtype(config)


def sharding(config: Config) -> dict[str, Any] | None:
    """The settings of FSDP; None without it."""
    return (config.parallelism_config or {}).get("fsdp")


def recomputes(config: Config) -> bool:
    """Whether activations are computed again in the backward pass, by this project or by FSDP."""
    return bool(config.model.activation_checkpointing or (sharding(config) or {}).get("activation_checkpointing"))


def microbatch_size(config: Config) -> int:
    """Samples of a forward pass on one GPU; with ``auto`` the least that Composer tries, 1."""
    size = config.device_train_microbatch_size
    return 1 if isinstance(size, str) else size


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one GPU, by what they are for.

    Attributes:
        parameters, gradients, optimizer: this rank's share. DDP's buckets are the gradients themselves.
        average: the copy of the trained weights that the algorithm ``ema`` keeps; this rank's share.
        gathered: of FSDP: the units that are whole at the same time, and their gradients before they are shared out.
        activations: kept from the forward to the backward pass, and the copies of trained weights in bfloat16 that
            autocast makes without FSDP.
        passing: the worst moment beyond that: a layer's backward pass, the logits, a picture in its encoder.
        reserve: see :data:`RESERVE`.
        settings: microbatch, length and recomputation that the activations are for, in words.
    """

    parameters: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    passing: int
    settings: str
    average: int = 0
    reserve: int = RESERVE

    @property
    def states(self) -> int:
        """What stays from step to step."""
        return self.parameters + self.gradients + self.optimizer + self.average

    @property
    def total(self) -> int:
        """All of it."""
        return self.states + self.gathered + self.activations + self.passing + self.reserve

    def __str__(self) -> str:
        terms = {
            "weights": self.parameters,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "moving average": self.average,
            "gathered by FSDP": self.gathered,
            f"activations ({self.settings})": self.activations,
            "temporary": self.passing,
            "reserve": self.reserve,
        }
        return " + ".join(f"{name} {size / GIB:.1f}" for name, size in terms.items() if size)


class MemoryOfRun:
    """Estimates for a run and for changes to it; the model is built once, without weights.

    Args:
        config: the run.
        with_world_encoder: whether the VAE runs in training, as it does unless all samples have latents.
        several_pictures: whether samples may have several pictures, up to ``convert.most_images``.

    Raises:
        UserError: a base model's configuration is not there.
    """

    def __init__(self, config: Config, with_world_encoder: bool = True, several_pictures: bool = False) -> None:
        # Bytes are bytes however they are packed; as FSDP has them, their number is right where it gathers them.
        self.model = load_shapes(config.model, with_world_encoder, frozen_dtype(config), frozen_dtype(config))
        self.beside = bytes_beside(self.model)
        self.most_pictures = config.convert.most_images if several_pictures else 1
        self.known: dict[Any, Footprint] = {}

    @property
    def least_tokens(self) -> int:
        """The length of a sample with a picture and no text."""
        config = self.model.config
        return config.mm_tokens_per_image + config.num_world_tokens

    def pictures(self, tokens: int) -> int:
        """The most pictures that a sample of so many tokens may have."""
        return max(1, min(self.most_pictures, tokens // self.least_tokens))

    def estimate(self, config: Config, ranks: int, tokens: int) -> MemoryEstimate:
        """What one GPU needs.

        Args:
            config: with this run's model; microbatch, recomputation, sharding and optimizer may differ from its own.
            ranks: GPUs that train together.
            tokens: length of each sample.
        """
        trained = sum(weight.nbytes for weight in self.model.parameters() if weight.requires_grad)
        everything = sum(weight.nbytes for weight in self.model.parameters())
        fsdp = sharding(config)
        shards = ranks if fsdp is not None else 1
        states = STATES_PER_WEIGHT.get(str(config.optimizer.get("name")), 2)
        kept, passing = self.activations(config, tokens)
        recomputed = "recomputed" if recomputes(config) else "not recomputed"
        pictures = self.pictures(tokens)
        of = f"{tokens} tokens" if pictures == 1 else f"{tokens} tokens with {pictures} pictures"
        return MemoryEstimate(
            parameters=everything // shards + self.beside,
            gradients=trained // shards,
            optimizer=states * trained // shards,
            gathered=0 if fsdp is None else self.gathered(config),
            activations=kept,
            passing=passing,
            average=trained // shards if "ema" in config.algorithms else 0,
            settings=f"{microbatch_size(config)} x {of}, {recomputed}",
        )

    def activations(self, config: Config, tokens: int) -> tuple[int, int]:
        """Bytes that are kept for the backward pass, and bytes at the worst moment beyond them."""
        shapes, samples, again = self.model.config, microbatch_size(config), recomputes(config)
        body = self.model.model
        language, seeing = (self.precision(config, part) for part in (body.language_model, body.vision_tower))
        head = self.precision(config, self.model.lm_head)
        pictures = samples * self.pictures(tokens)
        parts = [
            self.once(language_layer, shapes, samples, tokens, language, again).of(
                shapes.text_config.num_hidden_layers
            ),
            self.once(vision_layer, shapes, pictures, seeing, again).of(shapes.vision_config.num_hidden_layers),
            self.once(loss_chunk, shapes, head, self.most_logits(config, tokens)),
        ]
        if body.world_encoder is not None:
            parts.append(self.once(vae_encoder, shapes, pictures, self.precision(config, body.world_encoder)))
        return sum(part.kept for part in parts), max(part.passing for part in parts) + self.unpacked(config)

    def unpacked(self, config: Config) -> int:
        """Bytes of the largest weight in 4 bits where a product has it whole."""
        width = 2 if config.precision.startswith("amp") else 4
        return width * max((one.in_features * one.out_features for _, one in four_bit_layers(self.model)), default=0)

    def most_logits(self, config: Config, tokens: int) -> int:
        """Answer tokens whose logits exist at the same time, at most: compiled, the loss is not cut into chunks
        (:func:`~theworld.model.loss.answer_loss`), and all text of each sample might be answers."""
        if config.compile_config is None:
            return CHUNK_TOKENS
        return max(1, microbatch_size(config) * (tokens - self.least_tokens))

    def once(self, measure: Callable[..., Footprint], *inputs: Any) -> Footprint:
        """``measure(*inputs)``, remembered."""
        key = (measure.__name__, *inputs[1:])
        if key not in self.known:
            self.known[key] = measure(*inputs)
        return self.known[key]

    def precision(self, config: Config, part: nn.Module) -> Precision:
        """How a part computes under the run's precision."""
        mixed = torch.bfloat16 if config.precision.startswith("amp") else None
        trains = any(parameter.requires_grad for parameter in part.parameters())
        weights = next(part.parameters()).dtype
        # FSDP gathers weights in the precision of the products.
        return Precision(mixed if mixed and sharding(config) is not None else weights, mixed, trains)

    def gathered(self, config: Config) -> int:
        """Units that FSDP holds whole: the root from forward to backward, and a layer with the one fetched ahead.

        Gradients of a unit exist once in the precision of the products and once in float32, to be summed over ranks.
        """
        width = 2 if config.precision.startswith("amp") else 4
        units = [list(unit.parameters()) for unit in self.model.modules() if self.model.fsdp_wrap_fn(unit)]
        inside = {id(parameter) for unit in units for parameter in unit}
        root = [parameter for parameter in self.model.parameters() if id(parameter) not in inside]
        # A tower's own unit holds what its layers' units do not.
        largest = max(layer_sizes(units), key=lambda size: size[0])
        whole, trained = sizes(root)
        return width * (whole + 2 * largest[0]) + (width + 4) * (trained + largest[1])


def sizes(parameters: list[nn.Parameter]) -> tuple[int, int]:
    """How many numbers there are, and how many of them train."""
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def layer_sizes(units: list[list[nn.Parameter]]) -> list[tuple[int, int]]:
    """:func:`sizes` of each unit without the units inside it, which come after it."""
    seen: set[int] = set()
    found = []
    for unit in reversed(units):
        own = [parameter for parameter in unit if id(parameter) not in seen]
        seen.update(id(parameter) for parameter in own)
        found.append(sizes(own))
    return found
