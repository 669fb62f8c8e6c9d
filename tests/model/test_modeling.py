"""The model against Gemma 3 itself, and against itself by another road."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText, AutoProcessor, Gemma3ForConditionalGeneration, Gemma3Processor

from theworld.config.schema import FreezeConfig, ProjectorConfig
from theworld.errors import UserError
from theworld.model import TheWorldForConditionalGeneration, TheWorldProcessor, load_model, load_processor
from theworld.model.base import resolve_gemma


def without_labels(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in batch.items() if key != "labels"}


@pytest.fixture(scope="module")
def gemma() -> Gemma3ForConditionalGeneration:
    return Gemma3ForConditionalGeneration.from_pretrained(resolve_gemma("builtin:tiny").folder).eval()


@pytest.fixture
def worldless(tiny_config):
    """Model and processor with ``enable_world: false``."""
    cfg = tiny_config(enable_world=False, freeze=FreezeConfig(language=False))
    return load_model(cfg), load_processor(cfg)


# --- world off: plain Gemma 3 ------------------------------------------------------------------------------------


def test_world_off_gives_gemmas_logits_to_the_bit(gemma, worldless, make_batch):
    model, processor = worldless
    inputs = without_labels(make_batch(processor))
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, gemma(**inputs).logits)


def test_world_off_generates_what_gemma_generates(gemma, worldless, make_batch):
    model, processor = worldless
    inputs = without_labels(make_batch(processor))
    settings: dict[str, Any] = {"max_new_tokens": 12, "return_dict_in_generate": True, "output_logits": True}
    ours = model.generate(**inputs, **settings, do_sample=False)
    theirs = gemma.generate(**inputs, **settings, do_sample=False)
    assert torch.equal(ours.sequences, theirs.sequences)
    assert all(torch.equal(a, b) for a, b in zip(ours.logits, theirs.logits, strict=True))


def test_a_world_model_without_world_inputs_gives_gemmas_logits_to_the_bit(gemma, model, worldless, make_batch):
    inputs = without_labels(make_batch(worldless[1]))
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, gemma(**inputs).logits)


def test_world_off_refuses_world_inputs(worldless, processor, make_batch):
    inputs = make_batch(processor)
    with pytest.raises(ValueError, match="enable_world is false"):
        worldless[0](**inputs)


# --- world on ----------------------------------------------------------------------------------------------------


def test_the_picture_reaches_the_output_through_world_tokens_alone(model, processor, make_batch):
    inputs = without_labels(make_batch(processor))
    with torch.no_grad():
        before = model(**inputs).logits[:, -1]
        inputs["world_pixel_values"] = -inputs["world_pixel_values"]
        after = model(**inputs).logits[:, -1]
    assert (before - after).abs().max() > 1e-3


def test_logits_are_gemmas_on_the_sequence_with_the_world_filled_in(gemma, model, processor, make_batch):
    inputs = without_labels(make_batch(processor))
    with torch.no_grad():
        ours = model(**inputs).logits
        ids, features = inputs.pop("input_ids"), model.model.get_world_features(inputs.pop("world_pixel_values"), None)
        embeds = gemma.get_input_embeddings()(ids)
        for row in range(len(ids)):
            embeds[row, 1:7] = features[row]  # behind <bos>: start, four world tokens, end
        assert torch.equal(gemma(inputs_embeds=embeds, **inputs).logits, ours)


def test_latents_instead_of_pixels_give_the_same_logits(model, processor, make_batch):
    inputs = without_labels(make_batch(processor))
    with torch.no_grad():
        expected = model(**inputs).logits
        latents = model.model.get_world_latents(inputs.pop("world_pixel_values"))
        assert latents.shape == (3, 16, 8, 8)
        assert torch.equal(model(**inputs, world_latents=latents).logits, expected)


def test_without_world_encoder_latents_still_work_and_pixels_are_refused(tiny_config, model, processor, make_batch):
    encoderless = load_model(tiny_config(), with_world_encoder=False)
    inputs = without_labels(make_batch(processor))
    with torch.no_grad():
        expected = model(**inputs).logits
        latents = model.model.get_world_latents(inputs["world_pixel_values"])
        with pytest.raises(ValueError, match="no world encoder"):
            encoderless(**inputs)
        del inputs["world_pixel_values"]
        assert torch.equal(encoderless(**inputs, world_latents=latents).logits, expected)


def test_world_tokens_are_causal_and_image_tokens_are_not(model, processor, make_batch):
    """Of two equal prefixes, the world's hidden states do not see what follows; the image's see all of the image."""
    inputs = without_labels(make_batch(processor))
    end = int((inputs["input_ids"][0] == processor.world_token_ids[1]).nonzero())
    image = (inputs["input_ids"][0] == processor.tokenizer.image_token_id).nonzero().flatten()
    with torch.no_grad():
        before = model.model(**inputs).last_hidden_state
        inputs["pixel_values"] = inputs["pixel_values"].flip(-1)
        after = model.model(**inputs).last_hidden_state
        untyped = model.model(**inputs | {"token_type_ids": None}).last_hidden_state
    assert torch.equal(before[0, : end + 1], after[0, : end + 1])
    assert (after[0, image[0]] - untyped[0, image[0]]).abs().max() > 1e-3


@pytest.mark.parametrize("size", [1, 5])
def test_wrong_number_of_world_features_is_refused(model, processor, make_batch, size):
    inputs = make_batch(processor)
    with pytest.raises(ValueError, match="do not match"):
        model(**inputs | {"world_pixel_values": torch.zeros(size, 3, 64, 64)})


def test_world_tokens_without_world_inputs_are_refused(model, processor, make_batch):
    inputs = make_batch(processor)
    del inputs["world_pixel_values"]
    with pytest.raises(ValueError, match="neither world_pixel_values nor world_latents"):
        model(**inputs)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.rand(3, 3, 64, 64) * 255, r"values in \[-1, 1\]"),
        (torch.full((3, 3, 64, 64), float("nan")), r"values in \[-1, 1\]"),
        (torch.zeros(3, 3, 64, 64, dtype=torch.int64), "expected uint8 or floats"),
        (torch.zeros(3, 64, 64), "expected uint8 or floats of shape"),
        (torch.zeros(3, 3, 128, 128), "world latents: expected"),
    ],
)
def test_pixels_of_the_wrong_range_type_or_shape_are_refused(model, processor, make_batch, pixels, message):
    with pytest.raises(ValueError, match=message):
        model(**make_batch(processor) | {"world_pixel_values": pixels})


# --- loss --------------------------------------------------------------------------------------------------------


def test_loss_equals_gemmas_own_on_the_same_batch(gemma, worldless, make_batch):
    model, processor = worldless
    batch = make_batch(processor)
    with torch.no_grad():
        assert model(**batch).loss.item() == pytest.approx(gemma(**batch).loss.item(), rel=1e-6)


def test_loss_and_counts_with_world_equal_those_from_full_logits(model, processor, make_batch):
    batch = make_batch(processor)
    with torch.no_grad():
        logits = model(**without_labels(batch)).logits[:, :-1].flatten(0, 1)
        output = model(**batch)
    targets = batch["labels"][:, 1:].flatten()
    answers = targets != -100
    assert output.logits is None
    assert output.loss.item() == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-6)
    assert output.num_loss_tokens == answers.sum() > 10
    assert output.num_correct == (logits.argmax(-1) == targets)[answers].sum()


def test_padding_side_does_not_change_the_loss(model, processor, make_batch):
    batch = make_batch(processor)
    rolled = dict(batch)
    for key in ("input_ids", "attention_mask", "labels", "token_type_ids"):
        gaps = (batch["attention_mask"] == 0).sum(dim=1)
        rolled[key] = torch.stack([row.roll(int(gap)) for row, gap in zip(batch[key], gaps, strict=True)])
    rolled["position_ids"] = (rolled["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        assert model(**rolled).loss.item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)


# --- gradients, freezing and modes -------------------------------------------------------------------------------

PARTS = ("vision_tower", "multi_modal_projector", "language_model", "world_encoder", "world_projector")


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [
        (FreezeConfig(), {"world_projector"}),
        (FreezeConfig(vision=False), {"world_projector", "vision_tower", "multi_modal_projector"}),
        (FreezeConfig(language=False), {"world_projector", "language_model"}),
        (FreezeConfig(vae=False), {"world_projector", "world_encoder"}),
        (FreezeConfig(vision=False, language=False, vae=False), set(PARTS)),
    ],
)
def test_gradients_reach_exactly_the_parts_that_train(tiny_config, processor, make_batch, freeze, trained):
    model = load_model(tiny_config(freeze=freeze)).train()
    model(**make_batch(processor)).loss.backward()
    for name, parameter in model.named_parameters():
        part = next(part for part in PARTS if part in name)
        moved = parameter.grad is not None
        assert parameter.requires_grad == moved, name
        assert moved == (part in trained and "time_conv" not in name), name
    for part in trained:
        norms = [p.grad.norm() for n, p in model.named_parameters() if part in n and p.grad is not None]
        assert max(norms) > 0, part


def test_frozen_parts_stay_in_eval_mode(tiny_config):
    model = load_model(tiny_config(freeze=FreezeConfig(vision=False))).train()
    modes = {name: {module.training for module in part.modules()} for name, part in model.freezable_parts().items()}
    assert modes == {
        "vision_tower": {True},
        "multi_modal_projector": {True},
        "language_model": {False},
        "lm_head": {False},
        "world_encoder": {False},
    }
    assert model.model.world_projector.training
    assert not any(module.training for module in model.eval().modules())


def test_a_step_moves_the_projector_and_nothing_that_is_frozen(model, processor, make_batch):
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(20):
        loss = model(**make_batch(processor)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if "world_projector" in name}
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("architecture", ["mlp", "linear"])
@pytest.mark.parametrize("mode", ["spatial", "channel", "patch", "pool", "resampler"])
def test_a_new_projector_gives_tokens_of_the_size_of_words(tiny_config, pictures, mode, architecture):
    cfg = tiny_config(projector=ProjectorConfig(mode=mode, architecture=architecture, patch=2))
    model, processor = load_model(cfg), load_processor(cfg)
    with torch.no_grad():
        embedding = model.get_input_embeddings()
        words = embedding(torch.arange(900)).pow(2).mean().sqrt()
        pixels = processor.preprocess_images(pictures)["world_pixel_values"]
        features = model.model.get_world_features(pixels, None)
        ids = processor.tokenizer.convert_tokens_to_ids(["<start_of_image>", "<end_of_image>"])
        assert torch.equal(features[0, [0, -1]], embedding(torch.tensor(ids)))
        assert words / 3 < features[:, 1:-1].pow(2).mean().sqrt() < words * 3


def test_gradients_at_the_first_step_are_of_ordinary_size(model, processor, make_batch):
    model.train()(**make_batch(processor)).loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.model.world_projector.parameters()]).norm()
    assert 1e-3 < norm < 100


@pytest.mark.parametrize("freeze", [FreezeConfig(), FreezeConfig(vision=False, language=False, vae=False)])
@pytest.mark.parametrize("missing", ["images", "answers", "both"])
def test_a_batch_without_images_or_answers_has_zero_gradients_and_no_nan(
    tiny_config, processor, make_batch, freeze, missing
):
    model = load_model(tiny_config(freeze=freeze)).train()
    batch = make_batch(processor, images=missing == "answers")
    if missing != "images":
        batch["labels"] = torch.full_like(batch["labels"], -100)
    output = model(**batch)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            if missing != "images" or "world_projector" in name:
                assert not parameter.grad.any(), name
    if missing != "images":
        assert output.loss == 0
        assert output.num_loss_tokens == 0


def test_a_batch_without_images_has_the_loss_of_plain_gemma(gemma, model, processor, make_batch):
    batch = make_batch(processor, images=False)
    assert model.train()(**batch).loss.item() == pytest.approx(gemma(**batch).loss.item(), rel=1e-6)


@pytest.mark.parametrize("freeze", [FreezeConfig(), FreezeConfig(language=False, vision=False)])
def test_activation_checkpointing_changes_no_gradient_and_recomputes_layers(tiny_config, processor, make_batch, freeze):
    gradients, calls = [], []
    for recompute in (False, True):
        model = load_model(tiny_config(activation_checkpointing=recompute, freeze=freeze)).train()
        count = 0

        def counted(*_: Any) -> None:
            nonlocal count
            count += 1

        model.model.language_model.layers[0].mlp.register_forward_hook(counted)
        model(**make_batch(processor)).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        calls.append(count)
    assert calls == [1, 2]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


# --- generation --------------------------------------------------------------------------------------------------


def test_generate_agrees_with_and_without_cache_and_encodes_once(model, processor, make_batch, pictures):
    texts = [f"<bos><start_of_turn>user\n<start_of_image>{'Where? ' * n}<end_of_turn>\n" for n in (1, 9, 3)]
    inputs = processor(
        text=texts, images=[[p] for p in pictures], padding=True, add_special_tokens=False, return_tensors="pt"
    )
    encoded = []
    model.model.world_encoder.register_forward_hook(lambda *_: encoded.append(1))
    settings: dict[str, Any] = {"max_new_tokens": 10, "do_sample": False, "suppress_tokens": None, "min_new_tokens": 10}
    cached = model.generate(**inputs, **settings)
    assert len(encoded) == 1
    plain = model.generate(**inputs, **settings, use_cache=False)
    assert len(encoded) == 2
    assert cached.shape[1] == inputs["input_ids"].shape[1] + 10
    assert torch.equal(cached, plain)


def test_generate_never_writes_world_tokens(model, processor, pictures, tmp_path: Path):
    """Not even with weights by which one of two world tokens always has the highest logit."""
    first, second, _ = processor.world_token_ids
    with torch.no_grad():
        model.lm_head.weight[first] *= 1e6
        model.lm_head.weight[second] = -model.lm_head.weight[first]
    model.save_pretrained(tmp_path)
    again = TheWorldForConditionalGeneration.from_pretrained(tmp_path)
    inputs = processor(text="<start_of_image>Where?", images=[pictures[0]], return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    for either in (model, again):
        assert either(**inputs).logits[0, -1].argmax() in (first, second)
        written = either.generate(**inputs, max_new_tokens=8, do_sample=False)[0, length:]
        assert not set(written.tolist()) & set(processor.world_token_ids)


def test_generate_takes_several_samples_of_a_picture(model, processor, pictures):
    inputs = processor(text="<start_of_image>Where?", images=[pictures[0]], return_tensors="pt")
    together = model.generate(**inputs, max_new_tokens=4, num_beams=2, num_return_sequences=2, do_sample=False)
    assert together.shape[0] == 2
    assert not set(together[:, inputs["input_ids"].shape[1] :].flatten().tolist()) & set(processor.world_token_ids)


# --- saving ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["spatial", "channel", "patch", "pool", "resampler"])
def test_a_saved_and_reloaded_model_gives_the_same_logits(tiny_config, make_batch, tmp_path: Path, mode):
    cfg = tiny_config(projector=ProjectorConfig(mode=mode, patch=2))
    model, processor = load_model(cfg, seed=5), load_processor(cfg)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    processor_again = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(again, TheWorldForConditionalGeneration)
    assert isinstance(processor_again, TheWorldProcessor)
    inputs = without_labels(make_batch(processor))
    with torch.no_grad():
        assert torch.equal(again(**without_labels(make_batch(processor_again))).logits, model(**inputs).logits)
    assert again.config.base == model.config.base
    assert {(base["name"], base["revision"]) for base in again.config.base.values()} == {("builtin:tiny", None)}
    assert None not in {base["fingerprint"] for base in again.config.base.values()}


@pytest.mark.parametrize("prefix", ["model.world_projector.layers.0", "model.world_encoder.", "vision_tower."])
def test_a_model_whose_weights_are_not_all_in_the_file_does_not_load(model, tmp_path: Path, prefix):
    from safetensors.torch import load_file, save_file

    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    kept = {name: weight for name, weight in weights.items() if not name.startswith(prefix)}
    assert len(kept) < len(weights)
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="weights missing"):
        TheWorldForConditionalGeneration.from_pretrained(tmp_path)
    save_file(weights | {"model.world_projector.more": torch.zeros(1)}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="weights unexpected"):
        TheWorldForConditionalGeneration.from_pretrained(tmp_path)


def test_the_projector_is_the_same_on_every_rank_and_follows_the_seed(tiny_config):
    torch.manual_seed(1)
    first = load_model(tiny_config()).model.world_projector
    torch.manual_seed(2)
    second = load_model(tiny_config()).model.world_projector
    other = load_model(tiny_config(), seed=99).model.world_projector
    assert first is not None
    assert second is not None
    assert other is not None
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    weights = [projector.get_parameter("layers.0.weight") for projector in (first, other)]
    assert not torch.equal(*weights)


def test_bfloat16_loads_runs_and_keeps_the_latents_exact(tiny_config, model, processor, make_batch):
    half = load_model(tiny_config(), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    batch = make_batch(processor)
    with torch.no_grad():
        ours, theirs = half(**batch).loss.item(), model(**batch).loss.item()
        with torch.autocast("cpu", torch.bfloat16):
            cast = model(**batch).loss.item()
    assert ours == pytest.approx(theirs, rel=0.02)
    assert cast == pytest.approx(theirs, rel=0.02)


def test_gemmas_own_processor_loads_from_the_same_folder():
    """The tiny base is an ordinary Gemma 3, and not one that only this project can read."""
    plain = Gemma3Processor.from_pretrained(resolve_gemma("builtin:tiny").folder)
    assert plain.image_seq_length == 16
