"""Asked alone or beside others, with whatever cache: the same answer, token for token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from theworld.config.schema import ModelConfig, ProjectorConfig
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.samples import DecodedSample
from theworld.data.samples.regions import Turn
from theworld.errors import UserError
from theworld.inference.answering import Answerer, Asked, Past
from theworld.inference.load_trained import Trained, load_trained
from theworld.labels import IGNORE
from theworld.model import load_model, load_processor

COUNT = 32


@pytest.fixture(scope="module")
def trained() -> Trained:
    """The tiny model with noise on its weights, so that it answers every question in other words."""
    config = ModelConfig(
        gemma="builtin:tiny",
        cosmos="builtin:tiny",
        world_image_size=64,
        projector=ProjectorConfig(mode="patch", architecture="mlp", patch=4),
    )
    model = load_model(config)
    chance = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "vision" not in name:
                weight += torch.randn(weight.shape, generator=chance) * 0.05
    return Trained(model.eval(), load_processor(config), "tiny", "tiny")


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    """Questions of different lengths about different pictures."""
    chance = np.random.default_rng(1)
    found = []
    for number in range(COUNT):
        cells = chance.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        words = " and ".join(f"Region [{index}]" for index in range(1 + number % 7))
        picture = Image.fromarray(cells).resize((96, 64), Image.Resampling.NEAREST)
        found.append(Asked((picture,), f"What is {number} to {words}?"))
    return found


@pytest.fixture(scope="module")
def several(asked: list[Asked]) -> list[Asked]:
    """Questions about two and three pictures: in front of it, where it has them, and behind other turns."""
    one, two, three = (one.pictures[0] for one in asked[:3])
    return [
        Asked((one, two), "Which is brighter?"),
        Asked((two, one), "Is <image>\nas bright as <image>?"),
        Asked((one, two, three), "Which one is the brightest?"),
        Asked((one, two, three), "And why?", before=(Turn("Is <image> or <image> as <image>?", "No."),)),
        Asked((three, one), "And <image>?", before=(Turn("<image>Is Region [0] bright?", "Yes."), Turn("?", "!"))),
        Asked((three, one), "Is <image> bright?"),
    ]


def test_what_the_model_is_given_of_several_pictures_is_what_training_gives(
    trained: Trained, several: list[Asked]
) -> None:
    """Token for token up to the answer, which follows at once, and the same pixels."""
    answerer, encoder = Answerer(trained), SampleEncoder(trained.processor, 4096)
    for one in several:
        turns = [*one.before, Turn(one.question, "Yes.")]
        sample = encoder(DecodedSample("x", one.pictures[0], turns, more=list(one.pictures[1:])))
        prompt = answerer.prompt_ids(one)
        assert sample.input_ids[: len(prompt)] == prompt
        assert sample.labels[len(prompt) - 1] == IGNORE
        assert sample.labels[len(prompt)] == sample.input_ids[len(prompt)]
        assert prompt.count(trained.processor.world_token_ids[0]) == len(one.pictures)
        inputs = answerer.encode([one])
        for name, pixels in sample.pixels.items():
            assert torch.equal(inputs[name], pixels), name


def test_a_batch_answers_as_each_alone(trained: Trained, asked: list[Asked], several: list[Asked]) -> None:
    asked = [*several[:3], *asked, *several[3:]]
    together = Answerer(trained, 16, batch_size=len(asked)).answer(asked)
    alone = Answerer(trained, 16, batch_size=1).answer(asked)
    assert together == alone
    lengths = {len(Answerer(trained).prompt_ids(one)) for one in asked}
    assert len(lengths) > 5
    assert len(set(alone)) > COUNT / 4, "answers that are all alike would prove nothing"


def test_caches_agree(trained: Trained, asked: list[Asked]) -> None:
    answerer = Answerer(trained, 16)
    dynamic = answerer.answer_batch(asked[:4], cache_implementation="dynamic")
    assert answerer.answer_batch(asked[:4], cache_implementation="static", disable_compile=True) == dynamic


def test_a_conversation_reads_each_token_once(trained: Trained, asked: list[Asked], several: list[Asked]) -> None:
    """Four turns each about one picture, or two or three at once, longer than the sliding window: the same answers
    without a past."""
    answerer = Answerer(trained, 6)
    read: list[int] = []
    body = trained.model.model.language_model
    hook = body.register_forward_pre_hook(
        lambda module, args, given: read.append(given["inputs_embeds"].shape[1]), with_kwargs=True
    )
    went_on = 0
    with hook:
        for first in (*asked[:2], *several[:3]):
            past, turns = Past(), ()
            for turn in range(4):
                words = f"What is {turn} to Region [0]?" if turn else first.question
                one = Asked(first.pictures, words, before=turns)
                known = len(past.ids) if past.begins(answerer.prompt_ids(one)) else 0
                read.clear()
                answer = answerer.answer_turn(one, past)
                assert read[0] == len(answerer.prompt_ids(one)) - known
                went_on += known > 0
                assert [answer] == answerer.answer_batch([one])
                turns = (*turns, Turn(one.question, answer))
    assert went_on > 1, "no turn went on from the last one, so nothing was tried"


def test_the_world_can_be_taken_away_and_exchanged(trained: Trained, asked: list[Asked]) -> None:
    few = asked[:6]
    on = Answerer(trained, 16).answer(few)
    off, zero = (Answerer(trained, 16, world=world).answer(few) for world in ("off", "zero"))
    others = [Asked(one.pictures, one.question, two.pictures) for one, two in zip(few, few[1:] + few[:1], strict=True)]
    shuffled = Answerer(trained, 16, world="shuffled").answer(others)
    assert len({tuple(answers) for answers in (on, off, zero, shuffled)}) == 4
    no_world_tokens(trained, few[0])


def test_the_worlds_of_several_pictures_too(trained: Trained, several: list[Asked]) -> None:
    """One for each, in their order, and answers to all at once."""
    few, total = several[:4], 10
    turned = [replace(one, world_pictures=one.pictures[::-1]) for one in few]
    given = {}
    for world, some in (("on", few), ("off", few), ("zero", few), ("shuffled", turned)):
        answerer = Answerer(trained, 4, world=world)
        given[world] = answerer.encode(some)
        assert len(given[world]["pixel_values"]) == total
        assert len(answerer.answer(some)) == len(few)
    assert not {"world_pixel_values", "world_latents"} & given["off"].keys()
    assert given["zero"]["world_latents"].shape == (total, *given["zero"]["world_latents"].shape[1:])
    assert not given["zero"]["world_latents"].any()
    own, others = (given[world]["world_pixel_values"] for world in ("on", "shuffled"))
    assert torch.equal(others, own[[1, 0, 3, 2, 6, 5, 4, 9, 8, 7]])
    no_world_tokens(trained, few[0])


def no_world_tokens(trained: Trained, asked: Asked) -> None:
    """With the world off: none at all, not tokens of nothing."""
    start, end, soft = trained.model.config.world_token_ids
    assert not {start, end, soft} & set(Answerer(trained, world="off").prompt_ids(asked))


def test_no_world_to_replace_is_bad_input() -> None:
    with pytest.raises(UserError, match="has no world tokens"):
        Answerer(load_trained("builtin:tiny"), world="zero")
