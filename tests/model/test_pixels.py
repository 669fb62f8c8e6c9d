"""Pictures as bytes: the model makes of them what the processor does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Gemma3ImageProcessor

from tests.helpers.grey_levels import assert_same_picture
from tests.helpers.image_processor import change_image_processor
from theworld.config.schema import FreezeConfig, ModelConfig
from theworld.model import TheWorldForConditionalGeneration, TheWorldProcessor, load_model, load_processor
from theworld.model.base import resolve_gemma
from theworld.model.pixels import normalize, to_unit_range

Pictures = list[Image.Image]


@pytest.fixture(scope="module")
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (231, 317, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def other_scale(tiny_config: Callable[..., ModelConfig], tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    """A Gemma whose image processor has another mean, spread and factor than the released ones, one a channel."""
    folder = tmp_path_factory.mktemp("other") / "gemma"
    shutil.copytree(resolve_gemma("builtin:tiny").folder, folder)
    scale = {"image_mean": [0.48, 0.45, 0.40], "image_std": [0.26, 0.27, 0.28], "rescale_factor": 1 / 127}
    change_image_processor(folder, **scale)
    return tiny_config(gemma=str(folder), freeze=FreezeConfig(vision=False))


def as_bytes(batch: dict[str, Any], processor: TheWorldProcessor, pictures: Pictures) -> dict[str, Any]:
    return batch | processor.resize_images(pictures)


def test_resized_pictures_are_a_quarter_of_the_bytes(processor: TheWorldProcessor, pictures: Pictures) -> None:
    small, large = processor.resize_images(pictures), processor.preprocess_images(pictures)
    assert small.keys() == large.keys() == {"pixel_values", "world_pixel_values"}
    for name, pixels in small.items():
        assert pixels.dtype == torch.uint8
        assert large[name].dtype == torch.float32
        assert large[name].shape == pixels.shape
    assert processor.resize_images(pictures, world=False).keys() == {"pixel_values"}


def test_normalized_bytes_are_the_stock_processors(other_scale: ModelConfig, noise: Image.Image) -> None:
    stock: Any = Gemma3ImageProcessor.from_pretrained(other_scale.gemma)
    expected = stock([noise], return_tensors="pt")["pixel_values"]
    pixels = load_processor(other_scale).resize_images([noise])["pixel_values"]
    made = normalize(pixels, stock.image_mean, stock.image_std, stock.rescale_factor)
    levels = torch.tensor(stock.image_std).view(3, 1, 1) / stock.rescale_factor
    assert_same_picture(made * levels, expected * levels)


def test_every_byte_has_the_worlds_value_to_the_bit() -> None:
    levels = np.arange(256, dtype=np.uint8)
    expected = levels.astype(np.float32) / np.float32(127.5) - np.float32(1)
    assert np.array_equal(to_unit_range(torch.from_numpy(levels)).numpy(), expected)


def test_loss_and_gradients_are_those_of_floats(
    other_scale: ModelConfig, make_batch: Callable[..., Any], pictures: Pictures
) -> None:
    processor, model = load_processor(other_scale), load_model(other_scale)
    batch = make_batch(processor)
    found = []
    for inputs in (batch, as_bytes(batch, processor, pictures)):
        loss = model(**inputs).loss
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append((loss.item(), gradients))
        model.zero_grad()
    (expected, wanted), (loss, gradients) = found
    assert loss == pytest.approx(expected, abs=1e-6)
    assert wanted.keys() == gradients.keys()
    assert any("vision_tower" in name for name in wanted)
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_a_saved_model_remembers_the_scale(other_scale: ModelConfig, tmp_path: Path, noise: Image.Image) -> None:
    load_model(other_scale).save_pretrained(tmp_path)
    model = TheWorldForConditionalGeneration.from_pretrained(tmp_path)
    processor = load_processor(other_scale)
    small, large = processor.resize_images([noise]), processor.preprocess_images([noise])
    with torch.no_grad():
        made, expected = (model.get_image_features(pixels["pixel_values"]) for pixels in (small, large))
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)


def test_world_latents_are_the_same_to_the_bit(
    model: TheWorldForConditionalGeneration, processor: TheWorldProcessor, noise: Image.Image
) -> None:
    small, large = processor.resize_images([noise]), processor.preprocess_images([noise])
    made, expected = (model.model.get_world_latents(pixels["world_pixel_values"]) for pixels in (small, large))
    assert torch.equal(made, expected)


def test_generation_takes_bytes(
    model: TheWorldForConditionalGeneration, processor: TheWorldProcessor, pictures: Pictures
) -> None:
    prompt = "<bos><start_of_turn>user\n<start_of_image>Where?<end_of_turn>\n<start_of_turn>model\n"
    floats = dict(processor(text=prompt, images=[pictures[0]], return_tensors="pt"))
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
    expected = model.generate(**floats, **settings)
    assert torch.equal(model.generate(**as_bytes(floats, processor, [pictures[0]]), **settings), expected)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool])
def test_world_pixels_of_other_types_are_refused(model: TheWorldForConditionalGeneration, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="expected uint8 or floats"):
        model.model.get_world_latents(torch.zeros(1, 3, 64, 64, dtype=dtype))
