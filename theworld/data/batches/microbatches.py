"""Batch -> microbatches of samples of like length."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch

from theworld.data.batches.collate import ROWS_OF, Batch, round_up

PER_TOKEN = ("input_ids", "labels", "attention_mask", "token_type_ids")
"""Tensors of shape (B, L): what padding costs."""


PICTURES = tuple(ROWS_OF)
"""Tensors that are read only: nearly all of a batch's bytes."""


class Microbatch(dict[str, Any]):
    """A batch whose deep copies share its pictures.

    Composer makes one of every microbatch, on the GPU, to have it as it was before the forward pass. It takes this
    type from ``microbatch_transforms``, since moving a batch to a device makes it a plain dictionary.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Microbatch:
        return Microbatch({name: value if name in PICTURES else deepcopy(value, memo) for name, value in self.items()})


def split_by_length(
    batch: Batch, microbatch_size: int | float, length_step: int = 1, pin_memory: bool = False
) -> Sequence[Batch]:
    """Composer's ``split_batch``: the longest samples first, each microbatch cut to its own longest sample.

    Which samples are in the batch, and how many microbatches there are, stays as it was: ranks must agree on the
    number of forward passes. The longest come first, so that memory that is too small shows at the first microbatch.

    Args:
        batch: padded on the right.
        microbatch_size: samples of each microbatch but the last.
        length_step: lengths are multiples of it, as the batch's is.
        pin_memory: put the microbatches where the GPU can fetch them by itself, while the CPU goes on.

    Returns:
        ``ceil(B / microbatch_size)`` batches of the same keys.
    """
    lengths = batch["attention_mask"].sum(dim=1)
    order = torch.argsort(lengths, descending=True, stable=True)
    parts = order.split(max(int(microbatch_size), 1))
    return [take_samples(batch, part, round_up(int(lengths[part].max()), length_step), pin_memory) for part in parts]


def take_samples(batch: Batch, rows: torch.Tensor, length: int, pin_memory: bool = False) -> Batch:
    """The samples of ``rows`` (n,), cut to ``length`` tokens: a copy."""
    places = rows.tolist()
    taken: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            some = value[:, :length] if name in PER_TOKEN else value
            own = rows_of(batch.get(ROWS_OF.get(name, "")), rows)
            if not len(own):
                continue
            # Not the loader's own pinning: a copy of its pinned batch would not be pinned, and this one is made anyway.
            out = torch.empty((len(own), *some.shape[1:]), dtype=some.dtype, pin_memory=pin_memory)
            taken[name] = torch.index_select(some, 0, own, out=out)
        else:
            taken[name] = [value[place] for place in places]
    return taken


def rows_of(counts: Sequence[int] | None, samples: torch.Tensor) -> torch.Tensor:
    """The rows that some samples have in a tensor, theirs in a row.

    Args:
        counts: of rows, for each sample of the batch; None: one each.
        samples: (n,) int64, places in the batch.

    Returns:
        (m,) int64.
    """
    if counts is None:
        return samples
    sizes = torch.tensor(counts)
    ends = sizes.cumsum(0)
    own = [torch.arange(int(ends[one] - sizes[one]), int(ends[one])) for one in samples]
    return torch.cat(own) if own else samples


def padding_in(batch: Batch) -> tuple[int, int]:
    """Padding tokens, and all tokens, of a (micro)batch."""
    mask = batch["attention_mask"]
    return mask.numel() - int(mask.sum()), mask.numel()
