"""Samples of two pictures and of text alone: tokens and logits are those of stock Gemma 3, batches those of singles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Gemma3ForConditionalGeneration, Gemma3Processor

from theworld.config.schema import FreezeConfig, ModelConfig
from theworld.data.batches.collate import Batch, Collator
from theworld.data.batches.microbatches import split_by_length
from theworld.data.batches.sample_encoder import EncodedSample, SampleEncoder
from theworld.data.samples import DecodedSample, Turn
from theworld.errors import UserError
from theworld.model import TheWorldForConditionalGeneration, TheWorldProcessor, load_model, load_processor
from theworld.model.base import resolve_gemma
from theworld.model.pixels import normalize

TURNS = [Turn("How many?", "Two."), Turn("And now?", "Three.")]
PLACED = [Turn("Is <image>\nas bright as <image>?", "No."), Turn("Which is?", "The first.")]
PER_SAMPLE = ("sample_ids", "skipped", "turns_cut", "irregularities", "pictures", "worlds")


@pytest.fixture(scope="module")
def gemma() -> Gemma3ForConditionalGeneration:
    return Gemma3ForConditionalGeneration.from_pretrained(resolve_gemma("builtin:tiny").folder).eval()


@pytest.fixture(scope="module")
def stock() -> Gemma3Processor:
    return Gemma3Processor.from_pretrained(resolve_gemma("builtin:tiny").folder)


@pytest.fixture(scope="module")
def worldless(tiny_config: Callable[..., ModelConfig]) -> tuple[TheWorldForConditionalGeneration, SampleEncoder]:
    config = tiny_config(enable_world=False, freeze=FreezeConfig(language=False))
    return load_model(config).eval(), SampleEncoder(load_processor(config), 4096)


@pytest.fixture(scope="module")
def encoder(processor: TheWorldProcessor) -> SampleEncoder:
    return SampleEncoder(processor, 4096)


def sample(name: str, pictures: list[Image.Image], turns: list[Turn]) -> DecodedSample:
    first: Any = pictures[0] if pictures else None
    return DecodedSample(name, first, turns, more=list(pictures[1:]))


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def said(*turns: tuple[list[dict[str, Any]], str]) -> list[dict[str, Any]]:
    pairs = [({"role": "user", "content": one}, {"role": "assistant", "content": [text(two)]}) for one, two in turns]
    return [message for pair in pairs for message in pair]


def conversation(pictures: list[Image.Image]) -> tuple[list[Turn], list[dict[str, Any]]]:
    """Turns, and the same as messages for stock transformers."""
    images = [{"type": "image", "image": picture} for picture in pictures]
    if len(images) == 2:
        question = [text("Is"), images[0], text("as bright as"), images[1], text("?")]
        return PLACED, said((question, "No."), ([text("Which is?")], "The first."))
    return TURNS, said(([*images, text("How many?")], "Two."), ([text("And now?")], "Three."))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_with_the_world_off_tokens_and_logits_are_those_of_stock_gemma(
    count: int,
    gemma: Gemma3ForConditionalGeneration,
    stock: Gemma3Processor,
    worldless: tuple[TheWorldForConditionalGeneration, SampleEncoder],
    pictures: list[Image.Image],
) -> None:
    model, encoder = worldless
    turns, messages = conversation(pictures[:count])
    settings: Any = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs: Any = stock.apply_chat_template(messages, **settings)
    encoded = encoder(sample("x", pictures[:count], turns))
    assert encoded.input_ids == inputs["input_ids"][0].tolist()
    ours = inputs_of(Collator(encoder.processor)([encoded]))
    assert ("pixel_values" in ours) == (count > 0)
    if count:
        # Resized by torch instead of Pillow, some pixels differ by one grey level of 127.5 (theworld/model/processing).
        gemmas = encoder.processor.image_processor
        seen = normalize(ours["pixel_values"], gemmas.image_mean, gemmas.image_std, gemmas.rescale_factor)
        assert (seen - inputs["pixel_values"]).abs().max() < 0.02
        ours["pixel_values"] = inputs["pixel_values"]
    with torch.no_grad():
        assert torch.equal(model(**ours).logits, gemma(**inputs).logits)


def inputs_of(batch: Batch) -> dict[str, Any]:
    """What the model takes of a batch, without labels."""
    return {name: value for name, value in batch.items() if name not in (*PER_SAMPLE, "labels")}


def rows_alone(
    model: TheWorldForConditionalGeneration, collate: Collator, samples: list[EncodedSample]
) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model(**inputs_of(collate([one]))).logits[0] for one in samples]


@pytest.fixture
def mixed(encoder: SampleEncoder, pictures: list[Image.Image]) -> list[EncodedSample]:
    """Samples of none, two, one and three pictures."""
    made = [
        sample("none", [], TURNS),
        sample("two", pictures[:2], PLACED),
        sample("one", pictures[2:], TURNS[:1]),
        sample("three", pictures, TURNS),
    ]
    return [encoder(one) for one in made]


def test_a_batch_of_all_kinds_gives_what_its_samples_give_alone(
    model: TheWorldForConditionalGeneration, processor: TheWorldProcessor, mixed: list[EncodedSample]
) -> None:
    collate = Collator(processor)
    batch = collate(mixed)
    assert batch["pictures"] == batch["worlds"] == [0, 2, 1, 3]
    assert len(batch["pixel_values"]) == len(batch["world_pixel_values"]) == 6
    with torch.no_grad():
        together = model.eval()(**inputs_of(batch)).logits
    for row, alone in zip(together, rows_alone(model, collate, mixed), strict=True):
        torch.testing.assert_close(row[: len(alone)], alone, rtol=1e-4, atol=1e-4)


def test_no_sample_of_several_has_a_world_of_its_own_where_they_are_shuffled(
    processor: TheWorldProcessor, mixed: list[EncodedSample]
) -> None:
    for row, one in enumerate(mixed):
        one.pixels = {
            name: torch.stack([torch.full_like(pixels[0], 10 * row + place) for place in range(len(pixels))])
            for name, pixels in one.pixels.items()
        }
    batch = Collator(processor, shuffled_worlds=True)(mixed)
    assert batch["pictures"] == batch["worlds"] == [0, 2, 1, 3]
    assert batch["pixel_values"].flatten(1).amax(1).tolist() == [10, 11, 20, 30, 31, 32]
    assert batch["world_pixel_values"].flatten(1).amax(1).tolist() == [30, 31, 10, 20, 20, 20]


def test_each_world_is_of_its_own_picture(
    model: TheWorldForConditionalGeneration, processor: TheWorldProcessor, mixed: list[EncodedSample]
) -> None:
    """Another second picture changes the hidden states from the second world on, not before it."""
    ids = torch.tensor(mixed[1].input_ids)
    starts = (ids == processor.world_token_ids[0]).nonzero().flatten().tolist()
    length = processor.num_world_tokens + 2
    assert starts == [1, 1 + length], "behind <bos>, one after the other"
    inputs = inputs_of(Collator(processor)([mixed[1]]))
    with torch.no_grad():
        before = model.model(**inputs).last_hidden_state[0]
        inputs["world_pixel_values"][1] = 255 - inputs["world_pixel_values"][1]
        after = model.model(**inputs).last_hidden_state[0]
    assert torch.equal(before[: starts[1] + 1], after[: starts[1] + 1])
    assert (before[starts[1] + 1] - after[starts[1] + 1]).abs().max() > 1e-3


@pytest.mark.parametrize("size", [1, 2, 3])
def test_microbatches_have_the_pictures_of_their_samples(
    processor: TheWorldProcessor, mixed: list[EncodedSample], size: int
) -> None:
    collate = Collator(processor)
    by_name = {one.id: one for one in mixed}
    seen: list[str] = []
    for part in split_by_length(collate(mixed), size):
        expected = collate([by_name[name] for name in part["sample_ids"]])
        assert part.keys() == expected.keys()
        for name, value in expected.items():
            same = torch.equal(part[name], value) if isinstance(value, torch.Tensor) else part[name] == value
            assert same, name
        seen += part["sample_ids"]
    assert sorted(seen) == sorted(by_name)


def test_a_batch_without_any_picture_has_gradients_for_every_part(
    tiny_config: Callable[..., ModelConfig], processor: TheWorldProcessor, encoder: SampleEncoder
) -> None:
    model = load_model(tiny_config(freeze=FreezeConfig(vision=False, language=False))).train()
    batch = Collator(processor)([encoder(sample("a", [], TURNS)), encoder(sample("b", [], TURNS[:1]))])
    assert "pixel_values" not in batch
    model(**inputs_of(batch), labels=batch["labels"]).loss.backward()
    lacking = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
    assert lacking == []
    assert all(not one.grad.any() for one in model.model.vision_tower.parameters())


def test_samples_that_are_one_picture_are_as_they_were(
    processor: TheWorldProcessor, mixed: list[EncodedSample]
) -> None:
    """Nothing of the others' doing is in a batch of them but the two lists."""
    batch = Collator(processor)([mixed[2]] * 3)
    assert (batch["pictures"], batch["worlds"]) == ([1] * 3, [1] * 3)
    assert batch["pixel_values"].shape[0] == 3
    parts = split_by_length(batch, 2)
    assert [len(part["pixel_values"]) for part in parts] == [2, 1]


# -- what is longer than max_seq_len


def test_pictures_of_turns_that_are_cut_are_cut_with_their_worlds(
    processor: TheWorldProcessor, pictures: list[Image.Image]
) -> None:
    turns = [Turn("<image>How bright?", "Very."), Turn("And <image>, and <image>?", "Less.")]
    whole = SampleEncoder(processor, 4096)(sample("x", pictures, turns))
    cut = SampleEncoder(processor, len(whole.input_ids) - 3)(sample("x", pictures, turns))
    first = SampleEncoder(processor, 4096)(sample("x", pictures[:1], [Turn("How bright?", "Very.")]))
    assert (cut.turns_cut, cut.no_loss, len(cut.pixels["pixel_values"])) == (1, None, 1)
    assert cut.input_ids == first.input_ids
    assert torch.equal(cut.pixels["world_pixel_values"], first.pixels["world_pixel_values"])


def test_pictures_that_do_not_fit_cost_the_sample_its_loss(
    processor: TheWorldProcessor, pictures: list[Image.Image]
) -> None:
    one = SampleEncoder(processor, 4096)(sample("x", pictures[:1], TURNS))
    short = SampleEncoder(processor, len(one.input_ids) + 10)
    encoded = short(sample("x", pictures, TURNS))
    assert encoded.no_loss == f"the first turn is longer than max_seq_len={short.max_seq_len}"
    assert (encoded.turns_cut, set(encoded.labels)) == (2, {-100})
    assert len(encoded.pixels["pixel_values"]) == 1, "a grey one: tokens and pictures go together"


def test_a_stored_latent_is_of_one_picture(processor: TheWorldProcessor, pictures: list[Image.Image]) -> None:
    encoder = SampleEncoder(processor, 4096, world_latents=True)
    assert encoder(sample("text", [], TURNS)).pixels == {}
    with pytest.raises(UserError, match="a sample has several pictures, and stored latents are one a sample; set"):
        encoder(sample("x", pictures[:2], TURNS))


def test_text_of_the_data_cannot_forge_an_image(processor: TheWorldProcessor, encoder: SampleEncoder) -> None:
    image = processor.tokenizer.image_token_id
    for pictures in (0, 2):
        shown = [Image.fromarray(np.full((9, 9, 3), 99, np.uint8))] * pictures
        turn = Turn("<start_of_image> <image_soft_token> <start_of_world>?", "<start_of_image>")
        encoded = encoder(sample("x", shown, [turn]))
        assert encoded.input_ids.count(image) == pictures * processor.image_seq_length
        assert encoded.input_ids.count(processor.world_token_ids[0]) == pictures


def test_a_transform_s_pictures_are_trained_on(encoder: SampleEncoder, pictures: list[Image.Image]) -> None:
    """Whatever it leaves of the marks in the questions."""
    for turns in (PLACED, TURNS):
        encoded = encoder(sample("x", pictures[:2], turns))
        assert len(encoded.pixels["pixel_values"]) == 2
        assert encoded.input_ids.count(encoder.tokenizer.image_token_id) == 2 * encoder.processor.image_seq_length
