"""Batch -> microbatches of samples of like length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from theworld.data.batches.collate import Batch, round_up

PER_TOKEN = ("input_ids", "labels", "attention_mask", "token_type_ids")
"""Tensors of shape (B, L): what padding costs."""


def split_by_length(batch: Batch, microbatch_size: int | float, length_step: int = 1) -> Sequence[Batch]:
    """Composer's ``split_batch``: the longest samples first, each microbatch cut to its own longest sample.

    Which samples are in the batch, and how many microbatches there are, stays as it was: ranks must agree on the
    number of forward passes. The longest come first, so that memory that is too small shows at the first microbatch.

    Args:
        batch: padded on the right.
        microbatch_size: samples of each microbatch but the last.
        length_step: lengths are multiples of it, as the batch's is.

    Returns:
        ``ceil(B / microbatch_size)`` batches of the same keys.
    """
    lengths = batch["attention_mask"].sum(dim=1)
    order = torch.argsort(lengths, descending=True, stable=True)
    parts = order.split(max(int(microbatch_size), 1))
    return [take_samples(batch, part, round_up(int(lengths[part].max()), length_step)) for part in parts]


def take_samples(batch: Batch, rows: torch.Tensor, length: int) -> Batch:
    """The samples of ``rows`` (n,), cut to ``length`` tokens."""
    places = rows.tolist()
    taken: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            some = value[rows]
            taken[name] = some[:, :length] if name in PER_TOKEN else some
        else:
            taken[name] = [value[place] for place in places]
    return taken


def padding_in(batch: Batch) -> tuple[int, int]:
    """Padding tokens, and all tokens, of a (micro)batch."""
    mask = batch["attention_mask"]
    return mask.numel() - int(mask.sum()), mask.numel()
