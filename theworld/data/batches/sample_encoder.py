"""Decoded sample -> token ids with labels on the answers, and pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from theworld.data.batches.turn_frames import QUESTION, Frame, Pieces, find_frame
from theworld.data.latents.latent_encoder import empty_latent, from_bytes
from theworld.data.samples import DecodedSample, Turn
from theworld.data.samples.decode import GREY
from theworld.data.samples.regions import IMAGE, IMAGE_TOKEN, images_in, place_images
from theworld.errors import UserError
from theworld.labels import IGNORE

if TYPE_CHECKING:
    from theworld.model.processing import Picture, TheWorldProcessor

GREY_SIDE = 64
"""Pixels of the picture that stands for one that cannot be used."""
REWRITES = "the processor's chat template rewrites earlier turns; answers cannot be told apart"
SEVERAL_OF_ONE = (
    "train_loader.dataset.world_latents: a sample has several pictures, and stored latents are one a sample; set "
    "train_loader.dataset.world_latents=false to compute them while training"
)


@dataclass
class EncodedSample:
    """One sample, ready to be put into a batch. Lists are of length L tokens."""

    id: str
    input_ids: list[int]
    labels: list[int]
    """The token itself where it belongs to an answer, :data:`IGNORE` elsewhere."""
    pixels: dict[str, torch.Tensor]
    """Of P pictures ``pixel_values`` (P, 3, H, W) uint8 and, with the world enabled, ``world_pixel_values`` (P, 3, S,
    S) uint8 or, of one picture, ``world_latents`` (1, 16, S/8, S/8) bfloat16; nothing of a sample that is text
    alone."""
    turns_cut: int = 0
    problems: list[str] = field(default_factory=list)
    no_loss: str | None = None


KINDS = ((True, 1), (True, 0), (False, 0))
"""Turns whose surroundings are always the same: whether it is the sample's first one, and pictures in front of it."""
UNDECLARED = "<mask>"
"""A token of Gemma 3's tokenizer that stands for no text, although it is not declared special."""


def special_tokens(tokenizer: Any) -> set[str]:
    """Every token that text must not be able to write.

    ``all_special_tokens`` names only those with a role: of Gemma 3's tokenizer it lacks ``<start_of_turn>`` and
    ``<end_of_turn>``, which are special all the same. Ordinary added tokens, such as runs of newlines, stay.
    """
    added = {
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or token.content == UNDECLARED
    }
    return added | set(tokenizer.all_special_tokens)


class SampleEncoder:
    """Turns decoded samples into tokens by the processor's own chat template.

    Each turn is rendered and each piece of it tokenized by itself, so that a label boundary never falls inside a
    token, and the tokens before an answer are exactly those that generation would start from. What a sample costs
    follows from ``max_seq_len``, however long it is. What the template puts around the texts is found once
    (:mod:`~theworld.data.batches.turn_frames`), and the tokens of picture and world are made once.

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
        # Called through transformers, a short text costs ten times as much.
        self.backend = processor.tokenizer.backend_tokenizer
        self.max_seq_len = max_seq_len
        special = sorted(special_tokens(self.tokenizer), key=len, reverse=True)
        self.special_tokens = re.compile("|".join(map(re.escape, special)))
        self.longest_token = max(map(len, self.tokenizer.get_vocab()))
        self.end_of_turn = "<end_of_turn>"
        self.tails: dict[str, list[int]] = {}
        self.check_template()
        self.frames = {kind: find_frame(partial(self.pieces, first=kind[0], pictures=kind[1])) for kind in KINDS}
        self.openings = {kind: self.split_opening(frame) for kind, frame in self.frames.items()}
        # Whole, not as far as max_seq_len: the line below names the number.
        overhead = sum(len(self.tokenize(piece, len(piece))) for piece in self.render(Turn("", ""), first=True))
        if overhead >= max_seq_len:
            raise UserError(
                f"train_loader.dataset.max_seq_len: {max_seq_len} tokens, but the image and world tokens of one "
                f"sample alone take {overhead}; raise it, or use fewer world tokens (model.projector)"
            )

    def __call__(self, sample: DecodedSample) -> EncodedSample:
        pictures = sample.pictures
        turns = place_images(sample.turns, len(pictures))
        input_ids, labels, turns_kept = self.encode_turns(turns or [Turn("", "")], len(pictures))
        problems = list(sample.problems)
        no_loss = sample.no_loss
        turns_cut = len(turns) - turns_kept if turns else 0
        if turns_kept == 0 and no_loss is None:
            no_loss = f"the first turn is longer than max_seq_len={self.max_seq_len}"
        if len(pictures) > 1:
            if no_loss is not None:  # where all of them stand in the first turn, not even they may fit
                empty = self.without_loss(sample.id, no_loss)
                return replace(empty, turns_cut=turns_cut, problems=problems)
            pictures = pictures[: images_in(turns[:turns_kept])]
        if no_loss is not None:
            labels = [IGNORE] * len(labels)
        pixels = self.pixels(pictures, sample.world_latents)
        return EncodedSample(sample.id, input_ids, labels, pixels, turns_cut, problems, no_loss)

    def pixels(self, pictures: Sequence[Picture], latent: bytes | None) -> dict[str, torch.Tensor]:
        """What the model sees of pictures.

        Args:
            pictures: of a sample.
            latent: what was stored of the one picture, if the run takes such.

        Raises:
            UserError: there are several, and of each sample one latent.
        """
        if not pictures:
            return {}
        pixels = self.processor.resize_images(pictures, world=not self.world_latents)
        if self.world_latents:
            if len(pictures) > 1:
                raise UserError(SEVERAL_OF_ONE)
            assert latent is not None
            pixels["world_latents"] = from_bytes(latent)
        return pixels

    def picture_bytes(self) -> int:
        """Bytes of a sample's pixels and latents; the same for every sample."""
        return sum(tensor.nbytes for tensor in self.without_loss("", "").pixels.values())

    def without_loss(self, sample_id: str, reason: str) -> EncodedSample:
        """What stands for a sample that cannot be encoded: a grey picture, an empty turn, no labels."""
        latent = None
        if self.world_latents:
            latent = empty_latent(self.processor.world_image_size)
        picture = Image.new("RGB", (GREY_SIDE, GREY_SIDE), GREY)
        return self(DecodedSample(sample_id, picture, [], [], reason, latent))

    def encode_turns(self, turns: list[Turn], pictures: int = 1) -> tuple[list[int], list[int], int]:
        """Token ids, labels, and how many turns fit into ``max_seq_len``; what comes after these is not looked at.

        If not even the first turn fits, the result is its beginning, without labels, and 0 turns.

        Args:
            turns: of a sample; of several pictures each is :data:`~theworld.data.samples.regions.IMAGE` in a question.
                Those of turns that are cut have no world tokens either.
            pictures: of the sample.
        """
        found = self._encode_turns(turns, pictures)
        kept = turns[: found[2]]
        if pictures > 1 and kept and images_in(kept) < images_in(turns):
            found = self._encode_turns(kept, pictures)
        return found

    def _encode_turns(self, turns: list[Turn], pictures: int) -> tuple[list[int], list[int], int]:
        input_ids: list[int] = []
        labels: list[int] = []
        worlds = images_in(turns) if pictures > 1 else pictures
        for number, turn in enumerate(turns):
            opening, (prompt, answer, tail) = self.render_quickly(turn, number == 0, pictures, worlds)
            room = self.max_seq_len - len(input_ids)
            prompt_ids, answer_ids = opening + self.tokenize(prompt, room), self.tokenize(answer, room)
            if len(prompt_ids) + len(answer_ids) > room:
                if number > 0:
                    return input_ids, labels, number
                beginning = prompt_ids[: self.max_seq_len]
                return beginning, [IGNORE] * len(beginning), 0
            # The tail, a newline, is the next prompt's business: it may be what does not fit.
            tail_ids = self.tail(tail)
            input_ids += prompt_ids + answer_ids
            labels += [IGNORE] * len(prompt_ids) + answer_ids
            if len(input_ids) + len(tail_ids) <= self.max_seq_len:
                input_ids += tail_ids
                labels += [IGNORE] * len(tail_ids)
        return input_ids, labels, len(turns)

    def render_quickly(self, turn: Turn, first: bool, pictures: int, worlds: int) -> tuple[list[int], Pieces]:
        """What :meth:`render` gives; of the first piece, the beginning as tokens and the rest."""
        kind = (first, pictures if first else 0)
        frame = self.frames.get(kind)
        if frame is None or (pictures > 1 and IMAGE in turn.question):
            return [], self.render(turn, first, pictures, worlds)
        tokens, rest = self.openings[kind]
        prompt, answer, tail = frame.behind(Turn(self.escape(turn.question), self.escape(turn.answer)))
        return tokens, (rest + prompt, answer, tail)

    def split_opening(self, frame: Frame | None) -> tuple[list[int], str]:
        """Tokens of what stands in front of a question, as far as its last special token: no token reaches over that.
        And the text behind it."""
        if frame is None:
            return [], ""
        text = self.processor.expand_placeholders(frame.before)
        ends = [found.end() for found in self.special_tokens.finditer(text)]
        place = ends[-1] if ends else 0
        tokens, rest = self.tokenize(text[:place], len(text)), text[place:]
        # A token that takes white space beside it along would reach over it.
        whole = self.tokenize(f"{text} {QUESTION}", 2 * len(text))
        return (tokens, rest) if tokens + self.tokenize(f"{rest} {QUESTION}", len(text)) == whole else ([], text)

    def render(self, turn: Turn, first: bool, pictures: int = 1, worlds: int = 1) -> Pieces:
        """The text up to a turn's answer, the answer with its end-of-turn token, and what follows it.

        Args:
            turn: to render.
            first: whether it is the sample's first one, in front of which a picture stands that is alone.
            pictures: of the sample.
            worlds: of these, those that have a world, all of them in front of the first turn.
        """
        prompt, answer, tail = self.pieces(turn, first, pictures)
        return self.processor.expand_placeholders(prompt, worlds if first else 0), answer, tail

    def pieces(self, turn: Turn, first: bool, pictures: int = 1) -> Pieces:
        """:meth:`render` before the placeholders of pictures and worlds are expanded."""
        # A later turn is rendered behind an empty first one: of all turns in a row, the last would cost the most.
        before = [] if first else messages_of(Turn("", ""), first=True)
        done = self.template(before, add_generation_prompt=False) if before else ""
        question, answer = messages_of(turn, first, pictures)
        for part in (*question["content"], *answer["content"]):
            if "text" in part:
                part["text"] = self.escape(part["text"])
        with_prompt = self.template([*before, question], add_generation_prompt=True)
        with_answer = self.template([*before, question, answer], add_generation_prompt=False)
        if not (with_prompt.startswith(done) and with_answer.startswith(with_prompt)):
            raise UserError(REWRITES)
        text, end, tail = with_answer[len(with_prompt) :].rpartition(self.end_of_turn)
        return with_prompt[len(done) :], text + end, tail

    def check_template(self) -> None:
        """Turns rendered one by one must give what the template gives for all of them.

        Raises:
            UserError: they do not.
        """
        turns = [Turn("a", "b"), Turn("c", "d"), Turn("e", "f")]
        messages = [message for place, turn in enumerate(turns) for message in messages_of(turn, place == 0)]
        pieces = [piece for place, turn in enumerate(turns) for piece in self.pieces(turn, place == 0)]
        if "".join(pieces) != self.template(messages, add_generation_prompt=False):
            raise UserError(REWRITES)

    def template(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        settings: Any = {"tokenize": False, "add_generation_prompt": add_generation_prompt}
        text = self.processor.apply_chat_template(messages, **settings)
        assert isinstance(text, str)
        return text

    def tokenize(self, text: str, room: int) -> list[int]:
        """The text's tokens; of one that cannot fit into ``room`` tokens only the beginning, still more than that."""
        # Whoever called the tokenizer last may have left settings in it.
        self.backend.no_truncation()
        self.backend.no_padding()
        return self.backend.encode(text[: (room + 1) * self.longest_token], add_special_tokens=False).ids

    def tail(self, text: str) -> list[int]:
        """The tokens of what a template puts behind an answer: the same for all turns, so they are kept."""
        if text not in self.tails:
            self.tails = {text: self.tokenize(text, len(text))}
        return self.tails[text]

    def escape(self, text: str) -> str:
        """Text from the data with the tokenizer's special tokens broken up, so that it cannot forge a turn or an
        image: ``<end_of_turn>`` becomes ``< end_of_turn>``."""
        return self.special_tokens.sub(lambda token: f"{token[0][0]} {token[0][1:]}", text)


def messages_of(turn: Turn, first: bool, pictures: int = 1) -> list[dict[str, Any]]:
    """Question and answer as the chat template takes them: with a picture that is alone in front if it is the first
    turn; with each of several where the question has it."""
    content: list[dict[str, str]] = [{"type": "image"}] if first and pictures == 1 else []
    texts = IMAGE_TOKEN.split(turn.question) if pictures > 1 else [turn.question]
    for place, text in enumerate(texts):
        content += [{"type": "image"}] if place else []
        content += [{"type": "text", "text": text}] if text.strip() or len(texts) == 1 else []
    answer = [{"type": "text", "text": turn.answer}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
