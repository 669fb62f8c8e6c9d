"""The pictures of a generation's shards as the VAE takes them, decoded by worker processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from streaming.base.format.base.reader import Reader
from torch.utils.data import Dataset

from theworld.data.latents.latent_encoder import sample_pixels
from theworld.data.latents.record import LatentRecord
from theworld.data.shards.read_shard import OpenShard
from theworld.errors import UserError


class Pictures(Dataset):
    """Samples of some shards of a generation, in order.

    Items are ``shard`` (its number), ``id`` and ``pixels`` (3, S, S).

    Args:
        generation: its folder.
        shards: index entries of all its shards.
        wanted: numbers of those to read.
        record: size and boxes.
    """

    def __init__(
        self, generation: Path, shards: Sequence[dict[str, Any]], wanted: Sequence[int], record: LatentRecord
    ) -> None:
        self.generation = generation
        self.shards = shards
        self.record = record
        self.wanted = wanted
        self.places = [(number, place) for number in wanted for place in range(shards[number]["samples"])]
        self.opened: tuple[int, OpenShard] | None = None

    def batches(self, size: int) -> list[list[int]]:
        """Indices of items to encode together, at most so many, each of one shard: how floats are rounded depends on
        what they are computed beside, and a shard's bytes must not depend on which others are still to do."""
        found, first = [], 0
        for number in self.wanted:
            end = first + self.shards[number]["samples"]
            found += [list(range(start, min(start + size, end))) for start in range(first, end, size)]
            first = end
        return found

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, place = self.places[index]
        try:
            sample = self.reader(number)[place]
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise UserError(
                f"{self.generation}: shard {number} cannot be read ({error}); run convert/verify.py"
            ) from error
        return {"shard": number, "id": sample["id"], "pixels": sample_pixels(sample, self.record)}

    def reader(self, number: int) -> Reader:
        """The open shard of this number; it stays open until another one is asked for."""
        if self.opened is None or self.opened[0] != number:
            self.opened = number, OpenShard(self.generation, self.shards[number])
        return self.opened[1].reader


def first_of_batch(
    waiting: deque[tuple[list[int], list[str], Future[list[bytes]]]],
) -> Iterator[tuple[int, str, bytes]]:
    """The oldest batch that is being encoded, sample by sample."""
    numbers, ids, encoded = waiting.popleft()
    yield from zip(numbers, ids, encoded.result(), strict=True)
