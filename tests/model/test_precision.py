"""Frozen parts are the stock model's to the bit: parameters are cast, buffers are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from theworld.config.schema import FreezeConfig, ModelConfig
from theworld.model.build import load_model, load_processor
from theworld.model.tiny import tiny_folder
from theworld.train.composer_model import ComposerTheWorld

TOKENS = 2000


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Gemma 3 with the released one's head size, and a sliding window shorter than the sequence."""
    folder = tmp_path_factory.mktemp("gemma")
    for path in (tiny_folder() / "gemma").iterdir():
        if path.suffix != ".safetensors" and path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    config = Gemma3Config.from_pretrained(folder)
    config.text_config.head_dim = 256
    config.text_config.query_pre_attn_scalar = 256
    config.text_config.sliding_window = 512
    torch.manual_seed(5)
    model = Gemma3ForConditionalGeneration(config)
    model.to(torch.bfloat16)  # pyright: ignore[reportArgumentType]
    model.save_pretrained(folder)
    return folder


def settings(gemma: Path) -> ModelConfig:
    return ModelConfig(
        gemma=str(gemma), cosmos="builtin:tiny", enable_world=False, freeze=FreezeConfig(vision=False, language=True)
    )


def words() -> dict[str, torch.Tensor]:
    """A sequence longer than the sliding window."""
    ids = torch.randint(10, 800, (1, TOKENS), generator=torch.Generator().manual_seed(3))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def test_buffers_have_the_stock_models_precision(gemma: Path) -> None:
    stock = Gemma3ForConditionalGeneration.from_pretrained(gemma, dtype=torch.bfloat16)
    own = load_model(settings(gemma), frozen_dtype=torch.bfloat16)
    expected = {name: buffer.dtype for name, buffer in stock.named_buffers()}
    assert any("inv_freq" in name for name in expected)
    assert {name: buffer.dtype for name, buffer in own.named_buffers()} == expected
    assert own.lm_head.weight is own.get_input_embeddings().weight


@pytest.mark.parametrize("training", [False, True])
def test_logits_are_the_stock_models_to_the_bit(gemma: Path, training: bool) -> None:
    stock = Gemma3ForConditionalGeneration.from_pretrained(gemma, dtype=torch.bfloat16)
    own = load_model(settings(gemma), frozen_dtype=torch.bfloat16)
    inputs = words()
    if training:
        own.train()
        stock.train()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=training):
        expected = stock(**inputs).logits[:, -1]
        found = own(**inputs).logits[:, -1]
    assert torch.equal(found, expected)


def test_logits_in_composers_training_are_the_stock_models_to_the_bit(gemma: Path) -> None:
    """As the trainer runs it, gradients on; autocast by hand, since Composer refuses amp_bf16 on a CPU."""
    stock = Gemma3ForConditionalGeneration.from_pretrained(gemma, dtype=torch.bfloat16).train()
    model = load_model(settings(gemma), frozen_dtype=torch.bfloat16)
    trained = ComposerTheWorld(model, load_processor(settings(gemma))).train()
    inputs = words()
    with torch.autocast("cpu", torch.bfloat16):
        expected = stock(**inputs).logits[:, -1]
        found = trained(inputs).logits[:, -1]
    assert torch.equal(found, expected)
