"""What packing samples into rows of one length would bring: counted on paper, nothing is built of it.

    python -m benchmarks.packing [--samples 512] [--gemma FOLDER]

Lengths are those of the built-in sample's conversations, and of conversations of 3 to 20 turns made of the same turns:
the real data set is documented with about ten. Samples go through in batches of 16 on a rank, sorted into microbatches
of 4, as in training. Operations are those of ``theworld/model/flops.py`` at the shapes of Gemma 3 4B and of the Cosmos
VAE, padding counted as work, without memory or weights (meta device):

- as it is: a microbatch is padded to its longest sample; attention over the whole square, which is what sdpa does;
- compiled, padded to multiples of 256 tokens as ``compile_config`` does, and of 128 and 64;
- packed: whole samples side by side in rows of 4,096 tokens, first that fits; attention over those blocks of 128 x 128
  that flex_attention would compute for the mask: causal within a sample, pictures in both directions, and in 29 of 34
  layers no farther back than 1,024 tokens.

No prefix can be shared by samples: a photo occurs once in the data set, and all of its turns are one sample already.
Without ``--gemma``, a folder with the released tokenizer, the tiny one splits text into more tokens.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask

from benchmarks.loader_batches import LENGTH, processor_of_real_size
from benchmarks.machine import head, row
from benchmarks.memory import STAGES
from tests.train.real_shapes import write_real_shapes
from theworld.config.load import load_config
from theworld.data.batches.collate import round_up
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.samples import Turn, read_turns
from theworld.model.flops import Work, count_flops, trained_parts
from theworld.synthetic import describe
from theworld.train.memory import MemoryOfRun

YAML = str(Path(__file__).resolve().parents[1] / "yamls" / "spatial.yaml")
SEED = 17
BATCH, MICROBATCH, ROW, BLOCK = 16, 4, 4096, 128
TURNS = (3, 20)
PICTURE = slice(260, 516)
"""Where a sample's picture stands: behind <bos>, 258 world tokens and the beginning of the turn, 256 tokens."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--gemma", default="builtin:tiny", help="folder with the released tokenizer")
    given = parser.parse_args()
    torch.manual_seed(SEED)
    kinds = lengths_of(given.gemma, given.samples)
    with tempfile.TemporaryDirectory() as place:
        bases = write_real_shapes(Path(place))
        models = {stage: MemoryOfRun(load_config([YAML, *bases, *keys])).model for stage, keys in STAGES.items()}
    for kind, (lengths, answers) in kinds.items():
        print(f"\n{kind}: {min(lengths)} to {max(lengths)} tokens, {mean(lengths):.0f} on average\n")
        print(head("", "padding", "shapes", *(f"TFLOP a sample, {stage}" for stage in STAGES), "of today's"))
        now: list[float] = []
        for way, laid in ways(lengths).items():
            costs = [cost(model, laid, len(lengths), answers) for model in models.values()]
            now = now or costs
            shares = ", ".join(f"{after / before:.1%}" for after, before in zip(costs, now, strict=True))
            padding = 1 - sum(lengths) / sum(laid.rows)
            print(row(way, f"{padding:.1%}", len(set(laid.rows)), *(f"{one / 1e12:.1f}" for one in costs), shares))


def lengths_of(gemma: str, samples: int) -> dict[str, tuple[list[int], int]]:
    """Tokens of each sample, and answer tokens of all, of two kinds of conversations."""
    encoder = SampleEncoder(processor_of_real_size(gemma), LENGTH)
    chance = random.Random(SEED)
    entries = [describe(SEED, number, 1024).entry() for number in range(samples)]
    talks = [read_turns(entry["conversations"], entry["bbox"])[0] for entry in entries]
    turns = [turn for talk in talks for turn in talk]
    spread_out = [chance.choices(turns, k=chance.randint(*TURNS)) for _ in talks]
    kinds = {"The built-in sample": talks, f"Conversations of {TURNS[0]} to {TURNS[1]} turns": spread_out}
    return {kind: measured(encoder, some) for kind, some in kinds.items()}


def measured(encoder: SampleEncoder, talks: Sequence[list[Turn]]) -> tuple[list[int], int]:
    encoded = [encoder.encode_turns(turns)[:2] for turns in talks]
    return [len(ids) for ids, _ in encoded], sum(label >= 0 for _, labels in encoded for label in labels)


class Laid:
    """How samples are laid into rows: the rows' lengths, and pairs of tokens that attention computes in all of them, in
    layers that see a window and in those that see all."""

    def __init__(self, rows: list[int], sliding: float, full: float) -> None:
        self.rows, self.sliding, self.full = rows, sliding, full


def ways(lengths: Sequence[int]) -> dict[str, Laid]:
    laid = {"as it is": squares(padded(lengths, 1))}
    for step in (256, 128, 64):
        laid[f"compiled, multiples of {step}"] = squares(padded(lengths, step))
    bins = packed(lengths)
    dense, windowed = (mean(blocks(one, window) for one in bins[:8]) * len(bins) for window in (ROW, 1024))
    laid[f"packed to {ROW}"] = Laid([ROW] * len(bins), windowed, dense)
    laid["packed, the same rows without padding at their ends"] = Laid([sum(one) for one in bins], windowed, dense)
    return laid


def squares(rows: list[int]) -> Laid:
    pairs = float(sum(length**2 for length in rows))
    return Laid(rows, pairs, pairs)


def padded(lengths: Sequence[int], step: int) -> list[int]:
    """The samples' lengths in microbatches sorted by length."""
    found = []
    for start in range(0, len(lengths), BATCH):
        some = sorted(lengths[start : start + BATCH], reverse=True)
        for place in range(0, len(some), MICROBATCH):
            part = some[place : place + MICROBATCH]
            found += [round_up(part[0], step)] * len(part)
    return found


def packed(lengths: Sequence[int]) -> list[list[int]]:
    """The samples of each row: of each batch, the longest first, into the first row that has room."""
    found: list[list[int]] = []
    for start in range(0, len(lengths), BATCH):
        rows: list[list[int]] = []
        for length in sorted(lengths[start : start + BATCH], reverse=True):
            room = next((one for one in rows if sum(one) + length <= ROW), None)
            if room is None:
                rows.append([length])
            else:
                room.append(length)
        found += rows
    return found


def blocks(samples: Sequence[int], window: int) -> float:
    """Pairs of tokens in the blocks that flex_attention computes for a row."""
    sample, picture = torch.full((ROW,), -1), torch.zeros(ROW, dtype=torch.bool)
    start = 0
    for number, length in enumerate(samples):
        sample[start : start + length] = number
        picture[start + PICTURE.start : start + PICTURE.stop] = True
        start += length
    mask = create_block_mask(may_see(sample, picture, window), None, None, ROW, ROW, device="cpu", BLOCK_SIZE=BLOCK)
    whole = mask.full_kv_num_blocks
    computed = int(mask.kv_num_blocks.sum()) + (0 if whole is None else int(whole.sum()))
    return float(computed * BLOCK**2)


def may_see(sample: torch.Tensor, picture: torch.Tensor, window: int) -> Callable[..., torch.Tensor]:
    """Gemma 3's mask for a packed row: (batch, head, query, key) to whether the query sees the key."""

    def sees(_batch: Any, _head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        past = (key <= query) & (query - key < window)
        both = picture[query] & picture[key]
        return (sample[query] == sample[key]) & (sample[query] >= 0) & (past | both)

    return sees


def cost(model: Any, laid: Laid, samples: int, answers: int) -> float:
    """Operations a sample, forward and backward."""
    text = model.config.text_config
    work = Work(tuple(laid.rows), answers, samples, samples, samples)
    counted = count_flops(model.config, trained_parts(model), work).total
    # Attention over whole squares is in it: what is computed instead of them goes in its place.
    trained = bool(trained_parts(model) - {"language_model", "lm_head"}) or "language_model" in trained_parts(model)
    each = 4.0 * text.num_attention_heads * text.head_dim * (3 if trained else 1)
    sliding = sum(kind == "sliding_attention" for kind in text.layer_types)
    full = len(text.layer_types) - sliding
    whole = float(sum(length**2 for length in laid.rows)) * len(text.layer_types)
    return (counted + each * (sliding * laid.sliding + full * laid.full - whole)) / samples


if __name__ == "__main__":
    main()
