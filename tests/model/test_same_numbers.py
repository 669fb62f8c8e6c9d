"""The same weights give the same loss and gradients with the pins of constraints.txt and of constraints-next.txt.

The weights are drawn by the test, from names that are the same in both, since the libraries draw different ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

from theworld.config.schema import FreezeConfig, ModelConfig
from theworld.model import TheWorldForConditionalGeneration, load_model

LOSS = 7.134404
NORMS = {
    "vision_tower": 4.41399,
    "multi_modal_projector": 1.40259,
    "language_model": 4.35952,
    "world_projector": 1.22371,
}
"""Of the gradients, by part."""


@torch.no_grad()
def draw_weights(model: torch.nn.Module) -> None:
    """Weights that follow from their names in the new releases, and are no larger than those of a new model."""
    for name, weight in model.named_parameters():
        seed = zlib.crc32(name.replace(".vision_model.", ".").encode())
        drawn = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) - 0.5
        weight.copy_(drawn * (0.3 if weight.ndim > 1 else 0.1))


def a_batch(model: TheWorldForConditionalGeneration) -> dict[str, torch.Tensor]:
    """Two sequences with a world, an image and words, one of them padded."""
    config: Any = model.config
    chance = torch.Generator().manual_seed(1)
    start, end, soft = config.world_token_ids
    world = [start, *[soft] * config.num_world_tokens, end]
    image = [config.image_token_index] * config.mm_tokens_per_image
    words = torch.randint(20, 600, (2, 40), generator=chance).tolist()
    ids = torch.tensor([[2, *world, *image, *one] for one in words])
    labels = torch.full_like(ids, -100)
    labels[:, -20:] = ids[:, -20:]
    mask = torch.ones_like(ids)
    mask[1, -7:], labels[1, -7:] = 0, -100
    side = config.vision_config.image_size
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": mask,
        "token_type_ids": (ids == config.image_token_index).long(),
        "pixel_values": torch.randint(0, 256, (2, 3, side, side), generator=chance, dtype=torch.uint8),
        "world_latents": torch.randn(2, 16, config.latent_side, config.latent_side, generator=chance),
    }


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_loss_and_gradients_are_those_of_both(tiny_config: Callable[..., ModelConfig], kernel: str) -> None:
    freeze = FreezeConfig(vision=False, language=False)
    model = load_model(tiny_config(freeze=freeze, attn_implementation=kernel), with_world_encoder=False).train()
    draw_weights(model)
    loss = model(**a_batch(model)).loss
    loss.backward()
    parts = {**model.freezable_parts(), "world_projector": model.model.world_projector}
    norms = {
        name: float(torch.cat([one.grad.flatten() for one in part.parameters() if one.grad is not None]).norm())
        for name, part in parts.items()
        if part is not None and name != "lm_head"  # tied to the words
    }
    assert float(loss) == pytest.approx(LOSS, rel=1e-5)
    assert norms == pytest.approx(NORMS, rel=1e-4)
