"""The ``convert`` section, checked: values that make no sense are one line that names the key."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theworld.config.schema import MISSING, ConvertConfig
from theworld.config.sizes import parse_bytes
from theworld.data.entries.formats.entry_parts import UNITS
from theworld.data.entries.formats.entry_record import MOST_IMAGES
from theworld.data.entries.formats.format_table import AUTO
from theworld.data.entries.headers import MOST_PIXELS
from theworld.data.entries.hub_json import SCHEME
from theworld.data.entries.streamed_set import SCHEME as STREAMED
from theworld.data.latents.column import LatentColumn
from theworld.data.shards.mds import LARGEST_SHARD, ShardFormat, compressor
from theworld.data.shards.remote_data_set import SCHEMES
from theworld.errors import UserError

SMALLEST_SHARD = 1 << 12
VERIFY = ("header", "decode")


@dataclass(frozen=True)
class Settings:
    """A checked ``convert`` section.

    Attributes:
        json: path or hf:// URL of the conversations.
        form: ``convert.format``, auto or a name.
        images: the image folder; None: the pictures are inside of the entries.
        out: folder or URL of the data set.
        workers: processes that write shards.
        others: as in :class:`~theworld.config.schema.ConvertConfig`.
    """

    json: str
    json_cache: str | None
    images: Path | None
    image_folders: tuple[str, ...] | None
    out: str
    num_samples: int | None
    workers: int
    format: ShardFormat
    verify: str
    holdout: float
    rescale_boxes: bool = True
    most_pixels: int = MOST_PIXELS
    form: str = AUTO
    boxes: str = AUTO
    latents: LatentColumn | None = None
    most_images: int = MOST_IMAGES

    @property
    def images_of_entry(self) -> tuple[int, int]:
        """Images that an entry may have, at least and at most."""
        return images_of_entry(self.latents is not None, self.most_images)

    @property
    def evaluation_out(self) -> str:
        """Where the held-out share goes."""
        return self.out.rstrip("/") + "-eval"

    @property
    def remote(self) -> bool:
        """Whether ``out`` is a URL."""
        return "://" in self.out

    def lasting(self) -> dict[str, Any]:
        """What must stay the same from one generation of a data set to the next."""
        return {
            "keep_masks": self.format.keep_masks,
            "holdout": self.holdout,
            "world_latents": self.latents.record.to_json() if self.latents else None,
        }

    def planning(self) -> dict[str, Any]:
        """What the shards of one generation follow from, beside the JSON and the images."""
        return {
            **self.lasting(),
            "num_samples": self.num_samples,
            "size_limit": self.format.size_limit,
            "compression": self.format.compression,
            "verify": self.verify,
            "rescale_boxes": self.rescale_boxes,
            "most_pixels": self.most_pixels,
            "images": str(self.images.absolute()) if self.images is not None else None,
            "image_folders": list(self.image_folders) if self.image_folders is not None else None,
        }


def check_settings(config: ConvertConfig, latents: LatentColumn | None = None) -> Settings:
    """Every value of the section checked.

    Args:
        config: the section.
        latents: makes the column ``world_latents``, if there is to be one.

    Raises:
        UserError: a value is missing or impossible; the line names the key.
    """
    for key in ("json", "images", "out"):
        if getattr(config, key) in (MISSING, "") or (key != "images" and getattr(config, key) is None):
            raise UserError(f"convert.{key} is not set; set it in the YAML or as convert.{key}=PATH")
    if config.images is not None and not Path(config.images).is_dir():
        raise UserError(f"convert.images: {config.images}: no such folder")
    if not config.json.startswith((SCHEME, STREAMED)) and not Path(config.json).exists():
        raise UserError(
            f"convert.json: {config.json}: no such file; a path, {SCHEME}datasets/OWNER/NAME/FILE, or "
            f"{STREAMED}OWNER/NAME"
        )
    if "://" in config.out and config.out.partition("://")[0] not in SCHEMES:
        raise UserError(f"convert.out: {config.out}: expected a folder or a URL with one of {', '.join(SCHEMES)}")
    if config.verify not in VERIFY:
        raise UserError(f"convert.verify: {config.verify}: expected one of {', '.join(VERIFY)}")
    if not 0 <= config.holdout < 1:
        raise UserError(f"convert.holdout: {config.holdout}: expected a share from 0 up to, not including, 1")
    if not 1 <= config.most_pixels <= MOST_PIXELS:
        raise UserError(f"convert.most_pixels: {config.most_pixels}: expected 1 to {MOST_PIXELS:,}, Pillow's own limit")
    if config.boxes not in UNITS:
        raise UserError(f"convert.boxes: {config.boxes}: expected one of {', '.join(UNITS)}")
    for key in ("workers", "num_samples", "most_images"):
        value = getattr(config, key)
        if value is not None and value < 1:
            raise UserError(f"convert.{key}: {value}: expected 1 or more{'' if key == 'most_images' else ', or null'}")
    compression = check_compression(config.compression)
    return Settings(
        json=config.json,
        json_cache=config.json_cache,
        images=Path(config.images) if config.images is not None else None,
        image_folders=check_folders(config.image_folders),
        out=config.out,
        num_samples=config.num_samples,
        workers=config.workers or len(os.sched_getaffinity(0)),
        format=ShardFormat(
            parse_size(config.size_limit),
            compression,
            config.keep_masks,
            latents.record.sample_bytes if latents else 0,
        ),
        latents=latents,
        verify=config.verify,
        rescale_boxes=config.rescale_boxes,
        most_pixels=config.most_pixels,
        most_images=config.most_images,
        form=config.format,
        boxes=config.boxes,
        holdout=config.holdout,
    )


def check_compression(name: str | None) -> str | None:
    """``convert.compression``; None for none.

    Raises:
        UserError: Streaming knows no such one.
    """
    if not name:
        return None
    try:
        compressor(name)
    except ValueError as error:
        raise UserError(
            f"convert.compression: {name}: expected br, bz2, gz, snappy or zstd, or one with a level like zstd:3"
        ) from error
    return name


def images_of_entry(world_latents: bool, most_images: int) -> tuple[int, int]:
    """Images that an entry may have, at least and at most: a stored latent is of one."""
    return (1, 1) if world_latents else (0, most_images)


def check_folders(patterns: list[str] | None) -> tuple[str, ...] | None:
    """``convert.image_folders``, whose patterns are relative to the image folder."""
    for pattern in patterns or ():
        if not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
            raise UserError(f"convert.image_folders: {pattern!r}: expected a folder below convert.images, or a pattern")
    if patterns == []:
        raise UserError('convert.image_folders: []: expected folders below convert.images, "." for it itself, or null')
    return tuple(patterns) if patterns is not None else None


def parse_size(value: int | str) -> int:
    """``convert.size_limit`` in bytes, within what MDS can hold."""
    size = parse_bytes("convert.size_limit", value)
    if not SMALLEST_SHARD <= size <= LARGEST_SHARD:
        raise UserError(f"convert.size_limit: {value}: expected at least 4kb and less than 4gb, MDS's limit")
    return size
