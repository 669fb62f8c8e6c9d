"""Turns put together without the template are what the template makes of them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.helpers.slowly_encoded import encode_slowly, some_turns
from theworld.config.schema import FreezeConfig, ModelConfig, ProjectorConfig
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.batches.turn_frames import Pieces, find_frame
from theworld.data.samples import Turn
from theworld.model.build import load_processor

TINY = ModelConfig(
    gemma="builtin:tiny", cosmos="builtin:tiny", world_image_size=64, projector=ProjectorConfig(mode="patch", patch=4)
)


@pytest.mark.parametrize("world", [True, False])
def test_tokens_and_labels_are_those_of_the_template(world: bool) -> None:
    freeze = FreezeConfig(language=False)
    encoder = SampleEncoder(load_processor(replace(TINY, enable_world=world, freeze=freeze)), 4096)
    assert len(encoder.frames) == 3
    assert all(encoder.frames.values()), "Gemma's template only puts something around the texts"
    assert encoder.openings[True, 1][0], "picture and world are tokenized once"
    chance = random.Random(17)
    for _ in range(60):
        turns = some_turns(chance)
        expected = encode_slowly(encoder, turns)
        encoder.tokenizer(["a", "b c"], padding="max_length", truncation=True, max_length=9)  # leaves its settings
        assert encoder.encode_turns(turns)[:2] == expected, turns


def pieces_of(question: str, answer: str) -> Pieces:
    return f"<user>{question}<model>", f"{answer}<end>", "\n"


def test_a_template_that_only_frames_is_found() -> None:
    frame = find_frame(lambda turn: pieces_of(turn.question, turn.answer))
    assert frame is not None
    assert not frame.trims
    assert frame.behind(Turn(" a ", "b\n")) == (" a <model>", "b\n<end>", "\n")
    trimming = find_frame(lambda turn: pieces_of(turn.question.strip(), turn.answer.strip()))
    assert trimming is not None
    assert trimming.trims


@pytest.mark.parametrize(
    "render",
    [
        lambda turn: pieces_of(turn.question.lower(), turn.answer),
        lambda turn: pieces_of(turn.question, turn.answer.replace("'", "")),
        lambda turn: pieces_of(turn.question.strip(), turn.answer),
        lambda turn: pieces_of(turn.question.lstrip(), turn.answer.lstrip()),
        lambda turn: pieces_of(turn.question * 2, turn.answer),
        lambda turn: pieces_of(turn.question, turn.answer or "nothing"),
        lambda turn: pieces_of(turn.question + ("" if turn.answer else "!"), turn.answer),
    ],
)
def test_a_template_that_does_more_is_rendered_each_time(render) -> None:
    assert find_frame(render) is None


def test_without_a_frame_a_turn_is_rendered() -> None:
    encoder = SampleEncoder(load_processor(TINY), 4096)
    for kind in encoder.frames:
        encoder.frames[kind] = None
    turns = some_turns(random.Random(3))
    assert encoder.encode_turns(turns)[:2] == encode_slowly(encoder, turns)
