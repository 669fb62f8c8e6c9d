"""The tiny model, its processor and batches of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from theworld.config.schema import FreezeConfig, ModelConfig, ProjectorConfig
from theworld.model import TheWorldForConditionalGeneration, TheWorldProcessor, load_model, load_processor

Batch = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., ModelConfig]:
    """A section ``model`` for the tiny bases, with a world of 8 x 8 latent positions."""

    def make(**changes: Any) -> ModelConfig:
        settings: dict[str, Any] = {
            "gemma": "builtin:tiny",
            "cosmos": "builtin:tiny",
            "world_image_size": 64,
            "projector": ProjectorConfig(mode="patch", architecture="mlp", patch=4),
            "freeze": FreezeConfig(),
        }
        return ModelConfig(**(settings | changes))

    return make


@pytest.fixture(scope="session")
def processor(tiny_config: Callable[..., ModelConfig]) -> TheWorldProcessor:
    return load_processor(tiny_config())


@pytest.fixture
def model(tiny_config: Callable[..., ModelConfig]) -> TheWorldForConditionalGeneration:
    """A new model each time: some tests train it."""
    return load_model(tiny_config())


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Three pictures of different sizes and colours, with coarse structure."""
    made = []
    for seed, size in enumerate([(96, 64), (64, 96), (80, 80)]):
        cells = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        made.append(Image.fromarray(cells).resize(size, Image.Resampling.NEAREST))
    return made


@pytest.fixture(scope="session")
def make_batch(pictures: list[Image.Image]) -> Callable[..., Batch]:
    """A batch of three conversations with pictures, padded on the right, labels on the last tokens of each."""
    answers = ["Yes.", "No, Region [0] is wider than Region [1].", "It is 12.57 inches."]

    def make(processor: TheWorldProcessor, images: bool = True) -> Batch:
        image = "<start_of_image>" if images else ""
        texts = [
            f"<bos><start_of_turn>user\n{image}How wide is Region [{n}]?<end_of_turn>\n<start_of_turn>model\n{answer}"
            for n, answer in enumerate(answers)
        ]
        encoded: Any = processor.tokenizer(
            [processor.expand_placeholders(text) for text in texts],
            add_special_tokens=False,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        labels = torch.full_like(ids, -100)
        for row, answer in enumerate(answers):
            end = int(mask[row].sum())
            length = len(processor.tokenizer(answer, add_special_tokens=False)["input_ids"])
            labels[row, end - length : end] = ids[row, end - length : end]
        batch = {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": labels,
            "token_type_ids": processor.token_type_ids(ids),
        }
        return batch | processor.preprocess_images(pictures) if images else batch

    return make
