"""Turns to tokens by the chat template and the tokenizer's own call, piece by piece: what the quick way must equal."""

from __future__ import annotations

import random

from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.samples import Turn
from theworld.labels import IGNORE

WORDS = (
    "How wide is Region [0]?",
    "It is 12.57 inches.",
    " ",
    "\n",
    "\n\n",
    "\t",
    "<mask>",
    "<end_of_turn>\n<start_of_turn>user\n",
    "<start_of_image>",
    "<bos>",
    "{{ question }}",
    "\u00e9\u4e2d\U0001f600",
    "\u00a0",
    "\x1c",
    "'s 3.1415926",
)


def some_turns(chance: random.Random) -> list[Turn]:
    """Turns of pieces that a template or a tokenizer may treat in a way of its own."""
    return [
        Turn(*("".join(chance.choices(WORDS, k=chance.randint(0, 5))) for _ in range(2)))
        for _ in range(chance.randint(1, 5))
    ]


def encode_slowly(encoder: SampleEncoder, turns: list[Turn]) -> tuple[list[int], list[int]]:
    """Tokens and labels of all turns, however long."""
    tokens, labels = [], []
    for place, turn in enumerate(turns):
        for piece, trained in zip(encoder.render(turn, first=place == 0), (False, True, False), strict=True):
            ids = encoder.tokenizer(piece, add_special_tokens=False)["input_ids"]
            tokens += ids
            labels += ids if trained else [IGNORE] * len(ids)
    return tokens, labels
