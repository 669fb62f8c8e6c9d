"""Encoded samples -> batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from theworld.data.batches.sample_encoder import EncodedSample
from theworld.labels import IGNORE

if TYPE_CHECKING:
    from theworld.model.processing import TheWorldProcessor

Batch = dict[str, Any]
"""``input_ids``, ``labels``, ``attention_mask``, ``token_type_ids`` (B, L) int64; ``pixel_values`` (P, 3, H, W) of all
samples' pictures and ``world_pixel_values`` (W, 3, S, S) uint8, or instead of these ``world_latents`` (W, 16, S/8, S/8)
bfloat16, each only where there is any; and per sample, as lists of length B: ``sample_ids`` (str), ``skipped`` (why it
carries no loss, "" if it does; :data:`PADDING_SAMPLE` for samples that only fill the batch up), ``turns_cut`` and
``irregularities`` (int: turns beyond ``max_seq_len``; what was left out of the sample as unusable), ``pictures`` and
``worlds`` (int: how many rows of P and W are its own)."""

ROWS_OF = {"pixel_values": "pictures", "world_pixel_values": "worlds", "world_latents": "worlds"}
"""Tensors of which a sample has as many rows as this list says."""
PADDING_SAMPLE = "padding sample"
WORLDS = ("world_pixel_values", "world_latents")


@dataclass
class Collator:
    """Pads to the longest sample on the right, or to the next multiple of ``length_step`` tokens.

    With ``shuffled_worlds`` each sample gets the world of the sample before it, and the first that of the last one; of
    several pictures as many as it has itself, from the first one on again where there are fewer. A sample that is alone
    in its batch gets an empty world.
    """

    processor: TheWorldProcessor
    length_step: int = 1
    shuffled_worlds: bool = False

    def __call__(self, samples: Sequence[EncodedSample]) -> Batch:
        length = round_up(max(len(sample.input_ids) for sample in samples), self.length_step)
        pad = self.processor.tokenizer.pad_token_id
        input_ids = torch.full((len(samples), length), pad, dtype=torch.long)
        labels = torch.full((len(samples), length), IGNORE, dtype=torch.long)
        attention_mask = torch.zeros((len(samples), length), dtype=torch.long)
        for row, sample in enumerate(samples):
            tokens = len(sample.input_ids)
            input_ids[row, :tokens] = torch.tensor(sample.input_ids)
            labels[row, :tokens] = torch.tensor(sample.labels)
            attention_mask[row, :tokens] = 1
        batch: Batch = {
            "input_ids": input_ids,
            "labels": labels,
            "attention_mask": attention_mask,
            "token_type_ids": self.processor.token_type_ids(input_ids),
        }
        batch["pictures"], batch["worlds"] = [0] * len(samples), [0] * len(samples)
        for name in dict.fromkeys(name for sample in samples for name in sample.pixels):
            having = [row for row, sample in enumerate(samples) if name in sample.pixels]
            tensors = [samples[row].pixels[name] for row in having]
            for row, tensor in zip(having, tensors, strict=True):
                batch[ROWS_OF[name]][row] = len(tensor)
            batch[name] = torch.cat(of_others(tensors) if self.shuffled_worlds and name in WORLDS else tensors)
        batch["sample_ids"] = [sample.id for sample in samples]
        batch["skipped"] = [sample.no_loss or "" for sample in samples]
        batch["turns_cut"] = [sample.turns_cut for sample in samples]
        batch["irregularities"] = [len(sample.problems) for sample in samples]
        return batch


def of_others(worlds: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Of samples (P, ...) as many worlds each as it has, of the one before it; zeros of one that is alone."""
    if len(worlds) == 1:
        return [torch.zeros_like(worlds[0])]
    return [worlds[place - 1][torch.arange(len(own)) % len(worlds[place - 1])] for place, own in enumerate(worlds)]


def round_up(length: int, step: int) -> int:
    """The smallest multiple of ``step`` that is at least ``length``."""
    return -(-length // step) * step


def samples_in_batch(batch: Batch) -> int:
    """Samples of the data set in the batch: padding samples are repeats and do not count."""
    return sum(reason != PADDING_SAMPLE for reason in batch["skipped"])


def tokens_in_batch(batch: Batch) -> dict[str, int | float]:
    """Tokens in all, and tokens that carry loss.

    The second weighs microbatches and ranks against each other. Where there are none it is a number close to zero
    rather than zero, since Composer divides by its sum, which would be zero if a whole batch carried no loss.
    """
    total = int(batch["attention_mask"].sum())
    # The model predicts the next token, so the first position's label is never used.
    loss_generating = int((batch["labels"][:, 1:] != IGNORE).sum())
    return {"total": total, "loss_generating": float(loss_generating) or 1e-6}
