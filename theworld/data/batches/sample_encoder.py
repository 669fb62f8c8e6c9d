"""Decoded sample -> token ids with labels on the answers, and pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from theworld.data.latents.latent_encoder import empty_latent, from_bytes
from theworld.data.samples import DecodedSample, Turn
from theworld.data.samples.decode import GREY
from theworld.errors import UserError
from theworld.labels import IGNORE

if TYPE_CHECKING:
    from theworld.model.processing import TheWorldProcessor

GREY_SIDE = 64
"""Pixels of the picture that stands for one that cannot be used."""


@dataclass
class EncodedSample:
    """One sample, ready to be put into a batch. Lists are of length L tokens."""

    id: str
    input_ids: list[int]
    labels: list[int]
    """The token itself where it belongs to an answer, :data:`IGNORE` elsewhere."""
    pixels: dict[str, torch.Tensor]
    """``pixel_values`` (1, 3, H, W) and, with the world enabled, ``world_pixel_values`` (1, 3, S, S) in [-1, 1], or
    ``world_latents`` (1, 16, S/8, S/8) bfloat16."""
    turns_cut: int = 0
    problems: list[str] = field(default_factory=list)
    no_loss: str | None = None


def special_tokens(tokenizer: Any) -> set[str]:
    """Every token that text must not be able to write.

    ``all_special_tokens`` names only those with a role: of Gemma 3's tokenizer it lacks ``<start_of_turn>``,
    ``<end_of_turn>`` and ``<mask>``, which are special all the same.
    """
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | set(tokenizer.all_special_tokens)


class SampleEncoder:
    """Turns decoded samples into tokens by the processor's own chat template.

    The template is rendered turn by turn and each piece is tokenized by itself, so that a label boundary never falls
    inside a token, and the tokens before an answer are exactly those that generation would start from.

    Args:
        processor: TheWorld's processor.
        max_seq_len: tokens a sample may have; turns beyond are cut as a whole.
        world_latents: take the samples' latents instead of making world pixels.

    Raises:
        UserError: ``max_seq_len`` has no room for the image and world tokens.
    """

    def __init__(self, processor: TheWorldProcessor, max_seq_len: int, world_latents: bool = False) -> None:
        self.processor = processor
        self.world_latents = world_latents
        self.tokenizer = processor.tokenizer
        self.max_seq_len = max_seq_len
        self.special_tokens = sorted(special_tokens(self.tokenizer), key=len, reverse=True)
        self.end_of_turn = "<end_of_turn>"
        overhead = sum(len(self.tokenize(piece)) for piece in self.render([Turn("", "")])[0])
        if overhead >= max_seq_len:
            raise UserError(
                f"train_loader.dataset.max_seq_len: {max_seq_len} tokens, but the image and world tokens of one "
                f"sample alone take {overhead}; raise it, or use fewer world tokens (model.projector)"
            )

    def __call__(self, sample: DecodedSample) -> EncodedSample:
        input_ids, labels, turns_kept = self.encode_turns(sample.turns or [Turn("", "")])
        problems = list(sample.problems)
        no_loss = sample.no_loss
        turns_cut = len(sample.turns) - turns_kept if sample.turns else 0
        if turns_kept == 0 and no_loss is None:
            no_loss = f"the first turn is longer than max_seq_len={self.max_seq_len}"
        if no_loss is not None:
            labels = [IGNORE] * len(labels)
        pixels = self.processor.preprocess_images([sample.image], world=not self.world_latents)
        if self.world_latents:
            assert sample.world_latents is not None
            pixels["world_latents"] = from_bytes(sample.world_latents)
        return EncodedSample(sample.id, input_ids, labels, pixels, turns_cut, problems, no_loss)

    def without_loss(self, sample_id: str, reason: str) -> EncodedSample:
        """What stands for a sample that cannot be encoded: a grey picture, an empty turn, no labels."""
        latent = None
        if self.world_latents:
            latent = empty_latent(self.processor.world_image_size)
        picture = Image.new("RGB", (GREY_SIDE, GREY_SIDE), GREY)
        return self(DecodedSample(sample_id, picture, [], [], reason, latent))

    def encode_turns(self, turns: list[Turn]) -> tuple[list[int], list[int], int]:
        """Token ids, labels, and how many turns fit into ``max_seq_len``.

        If not even the first turn fits, the result is its beginning, without labels, and 0 turns.
        """
        input_ids: list[int] = []
        labels: list[int] = []
        for number, (prompt, answer, tail) in enumerate(self.render(turns)):
            prompt_ids, answer_ids, tail_ids = (self.tokenize(text) for text in (prompt, answer, tail))
            if len(input_ids) + len(prompt_ids) + len(answer_ids) > self.max_seq_len:
                if number > 0:
                    return input_ids, labels, number
                beginning = prompt_ids[: self.max_seq_len]
                return beginning, [IGNORE] * len(beginning), 0
            # The tail, a newline, is the next prompt's business: it may be what does not fit.
            input_ids += prompt_ids + answer_ids
            labels += [IGNORE] * len(prompt_ids) + answer_ids
            if len(input_ids) + len(tail_ids) <= self.max_seq_len:
                input_ids += tail_ids
                labels += [IGNORE] * len(tail_ids)
        return input_ids, labels, len(turns)

    def render(self, turns: list[Turn]) -> list[tuple[str, str, str]]:
        """For each turn the text up to the answer, the answer with its end-of-turn token, and what follows it."""
        pieces: list[tuple[str, str, str]] = []
        messages: list[dict[str, Any]] = []
        done = ""
        for number, turn in enumerate(turns):
            content: list[dict[str, str]] = [{"type": "text", "text": self.escape(turn.question)}]
            if number == 0:
                content.insert(0, {"type": "image"})
            messages.append({"role": "user", "content": content})
            with_prompt = self.template(messages, add_generation_prompt=True)
            messages.append({"role": "assistant", "content": [{"type": "text", "text": self.escape(turn.answer)}]})
            with_answer = self.template(messages, add_generation_prompt=False)
            if not (with_prompt.startswith(done) and with_answer.startswith(with_prompt)):
                raise UserError("the processor's chat template rewrites earlier turns; answers cannot be told apart")
            answer, end, tail = with_answer[len(with_prompt) :].rpartition(self.end_of_turn)
            pieces.append((self.processor.expand_placeholders(with_prompt[len(done) :]), answer + end, tail))
            done = with_answer
        return pieces

    def template(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        settings: Any = {"tokenize": False, "add_generation_prompt": add_generation_prompt}
        text = self.processor.apply_chat_template(messages, **settings)
        assert isinstance(text, str)
        return text

    def tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def escape(self, text: str) -> str:
        """Text from the data with the tokenizer's special tokens broken up, so that it cannot forge a turn or an
        image: ``<end_of_turn>`` becomes ``< end_of_turn>``."""
        for token in self.special_tokens:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text
