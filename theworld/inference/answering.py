"""Questions about pictures to answers, many at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from theworld.compat import cache_as_named
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.samples.regions import Turn, place_images
from theworld.errors import UserError
from theworld.inference.load_trained import Trained
from theworld.model.processing import without_world

log = logging.getLogger(__name__)

WORLDS = ("on", "off", "zero", "shuffled")
"""What the model gets for a world: the picture's, no world tokens at all, latents of zeros, or another picture's."""
LONGEST = 1 << 20
"""Tokens that a prompt may have; the memory is the limit."""


@dataclass(frozen=True)
class Asked:
    """A question about pictures that have their boxes drawn already."""

    pictures: tuple[Image.Image, ...]
    """One or more; of several each stands where the questions say ``<image>``, or all in front of the first one."""
    question: str
    world_pictures: tuple[Image.Image, ...] | None = None
    """Of which the world tokens are made, as many; None: of the pictures."""
    before: tuple[Turn, ...] = ()
    """Earlier turns of the same conversation."""


@dataclass
class Past:
    """What a model has read and written about the same pictures, so that the next turn need not read it again."""

    ids: list[int] = field(default_factory=list)
    """The tokens whose keys and values ``cache`` holds."""
    cache: DynamicCache | None = None

    def begins(self, prompt: list[int]) -> bool:
        """Whether a prompt goes on from here. The text of an answer may have other tokens than those that were
        written; such a prompt is read as a whole, so that the answer is always the one without a cache."""
        length = len(self.ids)
        return self.cache is not None and length < len(prompt) and prompt[:length] == self.ids


class Answerer:
    """Asks a model, greedily: the same question has the same answer, alone or beside others.

    Args:
        trained: the model.
        max_new_tokens: the longest answer.
        world: one of :data:`WORLDS`; the caller picks the pictures for ``shuffled``.
        batch_size: the most questions at once; halved where the GPU's memory has no room for them.

    Raises:
        UserError: the model has no world, but ``world`` is about one.
    """

    def __init__(self, trained: Trained, max_new_tokens: int = 256, world: str = "on", batch_size: int = 8) -> None:
        self.trained = trained
        self.model = trained.model
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.world = world
        has_world = trained.model.config.enable_world
        if world in ("zero", "shuffled") and not has_world:
            raise UserError(f"{trained.name}: has no world tokens, so there is nothing to replace (--world {world})")
        self.processor = without_world(trained.processor) if world == "off" else trained.processor
        with trained.faults_of_its_files():
            self.encoder = SampleEncoder(self.processor, LONGEST)
        self.tokenizer = trained.processor.tokenizer

    def answer(self, asked: Sequence[Asked]) -> list[str]:
        """Answers in the order of the questions."""
        answers: list[str] = []
        while len(answers) < len(asked):
            batch = asked[len(answers) : len(answers) + self.batch_size]
            try:
                answers += self.answer_batch(batch)
            except torch.cuda.OutOfMemoryError:
                if len(batch) == 1:
                    raise UserError("one question alone does not fit into the GPU's memory") from None
                torch.cuda.empty_cache()
                self.batch_size = max(1, len(batch) // 2)
                log.info("the GPU's memory has room for fewer questions at once: %d", self.batch_size)
        return answers

    @torch.inference_mode()
    def answer_batch(self, batch: Sequence[Asked], streamer: Any = None, **settings: Any) -> list[str]:
        """Answers to questions that are asked at once; ``settings`` are ``generate``'s."""
        with self.trained.faults_of_its_files():
            inputs = self.encode(batch)
            written = self.generate(inputs, streamer, **settings)
            return self.texts(written[:, inputs["input_ids"].shape[1] :])

    @torch.inference_mode()
    def answer_turn(self, asked: Asked, past: Past, streamer: Any = None) -> str:
        """The answer to the next question of a conversation, as :meth:`answer_batch` gives it.

        ``past`` is this model's, of these pictures; it is brought up to date.
        """
        with self.trained.faults_of_its_files():
            return self._answer_turn(asked, past, streamer)

    def _answer_turn(self, asked: Asked, past: Past, streamer: Any) -> str:
        inputs = self.encode([asked])
        prompt = inputs["input_ids"][0].tolist()
        if past.begins(prompt):
            cache = past.cache
            inputs = {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        else:
            cache = DynamicCache(config=self.model.config.get_text_config())
        assert cache is not None
        past.cache = None  # an answer that is broken off leaves a cache that fits no list of tokens
        written = self.generate(inputs, streamer, **cache_as_named(cache))
        past.ids = written[0, : cache.get_seq_length()].tolist()
        past.cache = cache
        return self.texts(written[:, len(prompt) :])[0]

    def generate(self, inputs: dict[str, Tensor], streamer: Any = None, **settings: Any) -> Tensor:
        """Prompts (B, L) and what follows them: tokens (B, L + the longest answer)."""
        given = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        dtype = next(self.model.parameters()).dtype
        if "world_latents" in given:
            given["world_latents"] = given["world_latents"].to(dtype)
        settings = {"max_new_tokens": self.max_new_tokens, "do_sample": False, **settings}
        return self.model.generate(
            **given,
            **settings,
            streamer=streamer,
            eos_token_id=self.end_tokens(),
            pad_token_id=self.tokenizer.pad_token_id,
            top_p=None,
            top_k=None,
        )

    def texts(self, new: Tensor) -> list[str]:
        """Tokens (B, N) of answers as text."""
        return [text.strip() for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]

    def end_tokens(self) -> list[int]:
        """Tokens that end an answer."""
        settings = self.model.generation_config
        configured: Any = settings.eos_token_id if settings is not None else None
        ends = configured if isinstance(configured, list) else [configured]
        ends.append(self.tokenizer.convert_tokens_to_ids(self.encoder.end_of_turn))
        return sorted({end for end in ends if end is not None})

    def encode(self, batch: Sequence[Asked]) -> dict[str, Tensor]:
        """The model's inputs, prompts padded on the left: ``input_ids``, ``attention_mask`` and ``token_type_ids``
        (B, L), and pixels of all P pictures as bytes: (P, 3, H, W), and worlds of as many."""
        prompts = [self.prompt_ids(asked) for asked in batch]
        length = max(map(len, prompts))
        ids = torch.full((len(batch), length), self.tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = torch.tensor(prompt)
            mask[row, length - len(prompt) :] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": self.processor.token_type_ids(ids)}
        pictures = [picture for asked in batch for picture in asked.pictures]
        inputs |= self.processor.resize_images(pictures)
        if "world_pixel_values" in inputs:
            worlds = [picture for asked in batch for picture in asked.world_pictures or asked.pictures]
            inputs["world_pixel_values"] = self.processor.resize_images(worlds)["world_pixel_values"]
        if self.world == "zero":
            del inputs["world_pixel_values"]
            config = self.model.config
            shape = (len(pictures), config.latent_channels, config.latent_side, config.latent_side)
            inputs["world_latents"] = torch.zeros(shape)
        return inputs

    def prompt_ids(self, asked: Asked) -> list[int]:
        """The tokens up to the answer: exactly those of training."""
        ids: list[int] = []
        pictures = len(asked.pictures)
        turns = place_images([*asked.before, Turn(asked.question, "")], pictures)
        for place, turn in enumerate(turns):
            prompt, answer, tail = self.encoder.render(turn, place == 0, pictures, worlds=pictures)
            last = place == len(turns) - 1
            for piece in (prompt,) if last else (prompt, answer, tail):
                ids += self.encoder.tokenize(piece, LONGEST)
        return ids
