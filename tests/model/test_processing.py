"""Text and pictures to inputs, against Gemma 3's own processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from transformers import Gemma3Processor

from tests.helpers.grey_levels import assert_same_picture
from theworld.model import TheWorldProcessor, load_processor
from theworld.model.base import resolve_gemma

WORLD = "<start_of_world>" + "<world_soft_token>" * 4 + "<end_of_world>"
IMAGE = "\n\n<start_of_image>" + "<image_soft_token>" * 16 + "<end_of_image>\n\n"
MESSAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How wide is Region [0]? "}]},
    {"role": "assistant", "content": [{"type": "text", "text": "It is 12.57 inches."}]},
    {"role": "user", "content": "And tall?"},
]
LEVEL = 1 / 255 / 0.5
"""What a grey level is in normalised pixels."""
CHAT = (
    "<bos><start_of_turn>user\n<start_of_image>How wide is Region [0]?<end_of_turn>\n"
    "<start_of_turn>model\nIt is 12.57 inches.<end_of_turn>\n"
    "<start_of_turn>user\nAnd tall?<end_of_turn>\n<start_of_turn>model\n"
)


@pytest.fixture(scope="module")
def worldless(tiny_config) -> TheWorldProcessor:
    from theworld.config.schema import FreezeConfig

    return load_processor(tiny_config(enable_world=False, freeze=FreezeConfig(language=False)))


@pytest.fixture(scope="module")
def gemma() -> Any:
    return Gemma3Processor.from_pretrained(resolve_gemma("builtin:tiny").folder)


def test_the_world_comes_right_behind_bos(processor):
    text = "<bos><start_of_turn>user\n<start_of_image>Where?<end_of_turn>\n"
    expected = f"<bos>{WORLD}<start_of_turn>user\n{IMAGE}Where?<end_of_turn>\n"
    assert processor.expand_placeholders(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<start_of_image>Where?", f"{WORLD}{IMAGE}Where?"),
        ("<bos>No picture.", "<bos>No picture."),
        ("<bos><start_of_image><start_of_image>", f"<bos>{WORLD}{WORLD}{IMAGE}{IMAGE}"),
    ],
)
def test_one_world_per_picture(processor, text, expected):
    assert processor.expand_placeholders(text) == expected


def test_without_world_only_the_image_is_expanded(worldless):
    assert worldless.expand_placeholders("<bos><start_of_image>Where?") == f"<bos>{IMAGE}Where?"


def test_call_equals_the_helpers(processor, pictures):
    text = "<bos><start_of_turn>user\n<start_of_image>Where?<end_of_turn>\n"
    called = processor(text=text, images=[pictures[0]], add_special_tokens=False, return_tensors="pt")
    expanded = processor.expand_placeholders(text)
    ids = processor.tokenizer(expanded, add_special_tokens=False, return_tensors="pt")["input_ids"]
    helped = processor.preprocess_images([pictures[0]])
    assert torch.equal(called["input_ids"], ids)
    assert torch.equal(called["token_type_ids"], processor.token_type_ids(ids))
    assert_same_picture(helped["pixel_values"], called["pixel_values"], LEVEL)
    assert torch.equal(called["world_pixel_values"], helped["world_pixel_values"])
    assert set(called) <= set(processor.model_input_names)


def test_without_world_it_is_gemmas_processor(worldless, gemma, pictures):
    text, images = [CHAT, CHAT], [[pictures[0]], [pictures[1]]]
    settings: dict[str, Any] = {"padding": True, "return_tensors": "pt"}
    ours = worldless(text=text, images=images, **settings)
    # A rendered template has its <bos>, to which Gemma 3's own adds another unless told not to.
    theirs = gemma(text=text, images=images, add_special_tokens=False, **settings)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert len(worldless.tokenizer) == len(gemma.tokenizer)


QUESTION = "<start_of_turn>user\nHow wide?<end_of_turn>\n"


@pytest.mark.parametrize("given", ["", "<bos>", "<bos><bos>"])
@pytest.mark.parametrize("settings", [{}, {"add_special_tokens": True}, {"text_kwargs": {"add_special_tokens": True}}])
@pytest.mark.parametrize("kind", ["world", "no picture", "worldless"])
def test_there_is_exactly_one_bos(processor, worldless, pictures, given, settings, kind):
    chosen = worldless if kind == "worldless" else processor
    image = "" if kind == "no picture" else "<start_of_image>"
    images = None if kind == "no picture" else [[pictures[0]], [pictures[1]]]
    texts = [f"{given}{image}{QUESTION}", f"{image}{QUESTION}"]
    rows = chosen(text=texts, images=images, **settings)["input_ids"]
    bos = chosen.tokenizer.bos_token_id
    assert [row[0] for row in rows] == [bos, bos]
    assert [row.count(bos) for row in rows] == [1, 1]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("settings", [{"add_special_tokens": False}, {"text_kwargs": {"add_special_tokens": False}}])
def test_a_text_without_bos_stays_so_when_asked(processor, pictures, settings):
    bos = processor.tokenizer.bos_token_id
    for text in (QUESTION, f"<bos>{QUESTION}"):
        assert processor(text=text, **settings)["input_ids"][0].count(bos) == text.count("<bos>")


def test_pixel_values_are_those_of_gemmas_image_processor(processor, gemma):
    noise = np.random.default_rng(0).integers(0, 256, (231, 317, 3), dtype=np.uint8)
    images = [Image.fromarray(noise), Image.fromarray(noise[:40, :, 0]), Image.fromarray(noise).convert("P")]
    theirs = gemma.image_processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]
    ours = processor.preprocess_images(images)["pixel_values"]
    assert ours.dtype == torch.float32
    assert_same_picture(ours, theirs, LEVEL)


@pytest.mark.parametrize("size", [(1024, 683), (640, 480), (96, 2000), (896, 896), (31, 57)])
def test_resized_pictures_are_pillows(real_processor_sizes, size):
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))
    for picture in (Image.fromarray(noise), smooth):
        made = real_processor_sizes.resize_images([picture])
        for name, side, resample in (("pixel_values", 896, 2), ("world_pixel_values", 512, 3)):
            resized = picture.resize((side, side), Image.Resampling(resample))
            assert_same_picture(made[name][0], torch.from_numpy(np.array(resized)).permute(2, 0, 1))
        as_array = real_processor_sizes.resize_images([np.array(picture)])
        assert all(torch.equal(as_array[name], pixels) for name, pixels in made.items())


@pytest.fixture
def real_processor_sizes(processor, monkeypatch):
    monkeypatch.setattr(processor.image_processor, "size", {"height": 896, "width": 896})
    monkeypatch.setattr(processor, "world_image_size", 512)
    return processor


def test_world_pixels_fill_the_square_in_minus_one_to_one(processor):
    black_white = Image.new("RGB", (90, 30))
    black_white.paste((255, 255, 255), (45, 0, 90, 30))
    pixels = processor.preprocess_images([black_white])["world_pixel_values"]
    assert pixels.shape == (1, 3, 64, 64)
    assert pixels.dtype == torch.float32
    assert (pixels.min(), pixels.max()) == (-1, 1)
    assert pixels[0, :, :, 0].eq(-1).all()
    assert pixels[0, :, :, -1].eq(1).all()


def test_texture_finer_than_the_square_becomes_grey_and_not_noise(processor):
    checkers = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert processor.preprocess_images([Image.fromarray(checkers)])["world_pixel_values"].abs().max() < 0.1


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_pictures_of_any_mode_become_rgb(processor, mode):
    made = processor.preprocess_images([Image.new("RGB", (20, 30), (200, 40, 90)).convert(mode)])
    assert made["pixel_values"].shape == (1, 3, 112, 112)
    assert made["world_pixel_values"].shape == (1, 3, 64, 64)


def test_no_image_is_refused(processor):
    with pytest.raises(ValueError, match="at least one image"):
        processor.preprocess_images([])


def test_chat_template_writes_gemmas_format(processor):
    assert processor.apply_chat_template(MESSAGES, add_generation_prompt=True) == CHAT
    system = [{"role": "system", "content": "Be brief."}, *MESSAGES[2:]]
    assert processor.apply_chat_template(system) == "<bos><start_of_turn>user\nBe brief.\n\nAnd tall?<end_of_turn>\n"


def test_chat_template_tokenizes_with_one_bos_and_the_world(processor, pictures):
    messages = [{"role": "user", "content": [{"type": "image", "image": pictures[0]}, *MESSAGES[0]["content"][1:]]}]
    inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
    ids = inputs["input_ids"][0].tolist()
    tokens = processor.tokenizer.convert_ids_to_tokens(ids)
    assert tokens[:7] == ["<bos>", "<start_of_world>", *["<world_soft_token>"] * 4, "<end_of_world>"]
    assert tokens.count("<bos>") == 1
    assert inputs["world_pixel_values"].shape == (1, 3, 64, 64)


def test_a_role_out_of_turn_is_refused(processor):
    with pytest.raises(Exception, match="expected a message of role assistant"):
        processor.apply_chat_template([MESSAGES[2], MESSAGES[2]])


def test_pictures_may_come_as_arrays_and_several_to_a_text(processor, pictures):
    arrays = [np.asarray(picture.resize((64, 64))) for picture in pictures[:2]]
    inputs = processor(text="<start_of_image> <start_of_image>", images=arrays, return_tensors="pt")
    assert inputs["world_pixel_values"].shape == (2, 3, 64, 64)
    assert (inputs["input_ids"] == processor.world_token_ids[2]).sum() == 8


def test_pictures_without_text_get_their_placeholders(processor, pictures):
    inputs = processor(images=[[pictures[0]], [pictures[1]]], return_tensors="pt")
    assert (inputs["input_ids"] == processor.tokenizer.image_token_id).sum(dim=1).tolist() == [16, 16]
    assert (inputs["input_ids"] == processor.world_token_ids[2]).sum(dim=1).tolist() == [4, 4]


def test_save_and_load_keep_everything(processor, pictures, tmp_path):
    processor.save_pretrained(tmp_path)
    again = TheWorldProcessor.from_pretrained(tmp_path)
    assert (again.enable_world, again.num_world_tokens, again.world_image_size) == (True, 4, 64)
    assert again.chat_template == processor.chat_template
    assert again.world_token_ids == processor.world_token_ids
    assert len(again.tokenizer) == len(processor.tokenizer)
    settings: dict[str, Any] = {"text": CHAT, "images": [pictures[0]], "return_tensors": "pt"}
    ours, theirs = processor(**settings), again(**settings)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    "text",
    [
        "Region [0] is 12.57 inches wide.",
        "  two  spaces, a\ttab,\r\nnew\n\nlines  ",
        "Öl, ñandú, 日本語, العربية, 🦊👩‍👩‍👧, \u0000\u2581<0x41>",
        "",
    ],
)
def test_the_tiny_tokenizer_encodes_any_text(processor, text):
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert processor.tokenizer.unk_token_id not in ids
    # Gemma's own vocabulary does not tell a space from the sign it writes for one.
    assert processor.tokenizer.decode(ids) == text.replace("\u2581", " ")


def test_the_tiny_tokenizer_keeps_conversations_short(processor):
    turn = (
        "<start_of_turn>user\nIs the green box represented by Region [2] to the left of Region [10] from the viewer's "
        "perspective?<end_of_turn>\n<start_of_turn>model\nRegion [2] is 39.78 centimeters away from Region [10] "
        "horizontally.<end_of_turn>\n"
    )
    assert len(processor.tokenizer(turn * 10)["input_ids"]) < 650
