"""The MDS binary layout, as streaming's MDSWriter writes it, without importing streaming (torch, 600 MB).

A shard is: number of samples, uint32; the offset of each sample and of the end, uint32 each; the
configuration as JSON; the samples. A sample is: the size of each column without a fixed size,
uint32 each; the columns in the order of their names. ``tests/convert`` compares the bytes with
MDSWriter's. Layout: streaming/base/format/mds/writer.py of mosaicml-streaming 0.13.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from theworld.data.entries.columns import (
    ABOUT,
    FIXED,
    MASKS,
    MORE_IMAGES,
    WORLD_LATENTS,
    Column,
    Origin,
    Picture,
    columns_with,
    encode_picture,
    of_entry,
    sample_of,
    split_record,
)

HASH = "xxh128"
INDEX = "index.json"
LARGEST_SHARD = 2**32 - 1
BYTES_PER_OFFSET = 4


def compressor(name: str) -> Callable[[bytes], bytes]:
    """The function behind streaming's name for a compression, such as ``zstd:3``.

    Raises:
        ValueError: unknown name, or a level that the algorithm does not have.
    """
    algorithm, colon, digits = name.partition(":")
    level = int(digits) if colon else None
    levels = {"br": range(12), "bz2": range(1, 10), "gz": range(10), "snappy": (), "zstd": range(1, 23)}
    if algorithm not in levels or (level is not None and level not in levels[algorithm]):
        raise ValueError(f"unknown compression {name}")
    if algorithm == "br":
        import brotli

        return lambda data: brotli.compress(data, quality=11 if level is None else level)
    if algorithm == "zstd":
        import zstd

        return lambda data: zstd.compress(data, 3 if level is None else level)
    if algorithm == "snappy":
        import snappy

        return lambda data: snappy.compress(data)
    if algorithm == "bz2":
        return lambda data: bz2.compress(data, 9 if level is None else level)
    return lambda data: gzip.compress(data, 9 if level is None else level, mtime=0)  # no clock in the bytes


@dataclass(frozen=True)
class ShardFormat:
    """How every shard of a generation is laid out.

    Args:
        size_limit: bytes a shard may have before compression.
        compression: streaming's name, or None.
        keep_masks: whether there is a column ``masks``.
        latent_bytes: size of a sample in the column ``world_latents``; 0: there is none.
        about: whether there is a column ``about``.
        several: whether there is a column ``more_images``.
    """

    size_limit: int
    compression: str | None = None
    keep_masks: bool = False
    latent_bytes: int = 0
    about: bool = False
    several: bool = False

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns in the table's order, which is that of a record's fields."""
        optional = {
            MASKS: self.keep_masks,
            ABOUT: self.about,
            MORE_IMAGES: self.several,
            WORLD_LATENTS: bool(self.latent_bytes),
        }
        return columns_with(**optional)

    @cached_property
    def stored(self) -> tuple[Column, ...]:
        """The columns in MDS's order, that of their names."""
        return tuple(sorted(self.columns, key=lambda column: column.name))

    @property
    def config(self) -> dict[str, Any]:
        """What MDSWriter stores of its settings, in each shard and in the index."""
        encodings = [column.encoding for column in self.stored]
        return {
            "version": 2,
            "format": "mds",
            "compression": self.compression,
            "hashes": [HASH],
            "size_limit": self.size_limit,
            "column_names": [column.name for column in self.stored],
            "column_encodings": encodings,
            "column_sizes": [FIXED[encoding].size if encoding in FIXED else None for encoding in encodings],
        }

    @property
    def config_bytes(self) -> bytes:
        return json.dumps(self.config, sort_keys=True).encode("utf-8")

    @property
    def empty_size(self) -> int:
        """Bytes of a shard without samples, as MDSWriter counts them against the limit."""
        return 8 + len(self.config_bytes)

    def sample_size(self, record_length: Any, image_size: Any) -> Any:
        """Bytes of a sample from the length of its record in the catalog and of its image, or of its images as the
        columns hold them; works on arrays."""
        return record_length + image_size + self._rest_of_sample

    @cached_property
    def _rest_of_sample(self) -> int:
        """Bytes of a sample beside its record and its image."""
        fixed = [FIXED[column.encoding].size for column in self.columns if column.encoding in FIXED]
        sizes = 4 * (len(self.columns) - len(fixed))
        separators = len(of_entry(self.columns))  # a tab after each field of the record, a newline after the last
        return sizes + sum(fixed) - separators + self.latent_bytes

    def sample(self, record: bytes, picture: Picture) -> dict[str, Any]:
        """The sample as a reader will see it, without what is still to be made."""
        return sample_of(record, picture, self.columns)

    def sample_parts(self, record: bytes, picture: Picture, latent: bytes = b"") -> list[bytes]:
        """The pieces that, joined, are the sample.

        Args:
            record: line of the catalog.
            picture: the image.
            latent: of ``latent_bytes``.
        """
        values = split_record(record, self.columns) | encode_picture(picture, self.columns)
        values |= {column.name: latent for column in self.columns if column.origin is Origin.MADE}
        body = [values[column.name] for column in self.stored]
        sizes = [len(values[column.name]) for column in self.stored if column.encoding not in FIXED]
        return [struct.pack(f"<{len(sizes)}I", *sizes), *body]

    def header(self, sizes: Sequence[int]) -> bytes:
        """What precedes the samples in a shard, given the samples' sizes in bytes."""
        config = self.config_bytes
        start = BYTES_PER_OFFSET * (len(sizes) + 2) + len(config)
        offsets = start + np.concatenate([[0], np.cumsum(np.array(sizes, np.int64))])
        return struct.pack("<I", len(sizes)) + offsets.astype("<u4").tobytes() + config

    def index_entry(self, samples: int, raw: dict[str, Any], compressed: dict[str, Any] | None) -> dict[str, Any]:
        """The shard's entry in index.json; ``raw`` and ``compressed`` are file infos."""
        return {"samples": samples, "raw_data": raw, "zip_data": compressed, **self.config}


def file_info(basename: str, size: int, digest: str) -> dict[str, Any]:
    """A file as index.json describes it."""
    return {"basename": basename, "bytes": size, "hashes": {HASH: digest}}


def stored_info(shard: dict[str, Any]) -> dict[str, Any]:
    """The info of the file that is there: the compressed one if there is one."""
    return shard["zip_data"] or shard["raw_data"]


def index_bytes(shards: Sequence[dict[str, Any]]) -> bytes:
    """index.json over shard entries, as MDSWriter writes it."""
    return json.dumps({"version": 2, "shards": list(shards)}, sort_keys=True).encode("utf-8")


def read_ids(shard: Path) -> list[str]:
    """Ids of an uncompressed shard, in order, without reading the images.

    Raises:
        ValueError: the file is not such a shard.
    """
    return [sample["id"].decode("utf-8") for sample in read_columns(shard, ("id",))]


def read_columns(
    shard: Path | bytes, wanted: Sequence[str], places: Sequence[int] | None = None
) -> Iterator[dict[str, bytes]]:
    """Some columns of an uncompressed shard, without reading the others.

    Args:
        shard: the file, or what is in it.
        wanted: names of columns.
        places: numbers of the samples; None: all, in order.

    Yields:
        Column name to its bytes, as MDS has encoded them.

    Raises:
        ValueError: the file is not such a shard.
    """
    with io.BytesIO(shard) if isinstance(shard, bytes) else open(shard, "rb") as file:
        count = struct.unpack("<I", file.read(4))[0]
        offsets = np.frombuffer(file.read(BYTES_PER_OFFSET * (count + 1)), "<u4")
        config = json.loads(file.read(int(offsets[0]) - file.tell()))
        fixed = dict(zip(config["column_names"], config["column_sizes"], strict=True))
        variable = [name for name, size in fixed.items() if size is None]
        for place in range(count) if places is None else places:
            file.seek(int(offsets[place]))
            lengths = struct.unpack(f"<{len(variable)}I", file.read(4 * len(variable)))
            sizes = fixed | dict(zip(variable, lengths, strict=True))
            start = file.tell()
            found: dict[str, bytes] = {}
            for name, size in sizes.items():
                if name in wanted:
                    file.seek(start)
                    found[name] = file.read(size)
                start += size
            yield found
