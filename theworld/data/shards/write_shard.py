"""One shard, from the catalog's records and the image files to a finished file: what a worker process does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from theworld.data.entries.check_entry import IMAGE_SUFFIXES, image_id
from theworld.data.entries.columns import ABOUT, ANNOTATION_SIZE, BOX_IMAGES, Picture, split_record
from theworld.data.entries.formats.entry_format import BETWEEN
from theworld.data.entries.frame import OTHER, SAME, SCALED, UNKNOWN, fit, odd_boxes, orientation_of
from theworld.data.entries.headers import MOST_PIXELS, TOO_MANY, BadImage, check_image
from theworld.data.entries.picture_sets import Image, images_of_row
from theworld.data.entries.scan import image_suffix, printable
from theworld.data.entries.tar_images import place_of
from theworld.data.latents.column import LatentColumn
from theworld.data.shards.mds import ShardFormat, compressor, file_info, stored_info
from theworld.data.shards.shard_plan import ShardJob
from theworld.files import read_json, sync_path, temporary_name, write_json

RETRY_ALWAYS = -1  # a size that no file has: such a rejection never counts as unchanged


@dataclass(frozen=True)
class Written:
    """A shard that is written but not finished: where it is, and the fragment that describes it."""

    temporary: Path
    fragment: dict[str, Any]


@dataclass(frozen=True)
class ShardWriter:
    """Writes shards of one generation.

    Args:
        images: the image folder.
        records: the catalog's records.
        folder: the generation's working folder: ``folder/PART/shard.NNNNN.mds``, ``folder/fragments``.
        layout: the shards' format.
        decode: decode every image in full before it is written.
        rescale: take pictures whose annotation is of the same picture in another size.
        latents: makes the column ``world_latents``, if the layout has it.
        most_pixels: that a picture's header may claim.
    """

    images: Path
    records: Path
    folder: Path
    layout: ShardFormat
    decode: bool
    rescale: bool = True
    latents: LatentColumn | None = None
    most_pixels: int = MOST_PIXELS

    def fragment_path(self, job: ShardJob) -> Path:
        return self.folder / "fragments" / f"{job.name}.json"

    def finished(self, job: ShardJob) -> dict[str, Any] | None:
        """The fragment of a job that was finished before, if its file is there in full."""
        fragment = read_json(self.fragment_path(job))
        if fragment is None or fragment["shard"] is None or fragment.get("uploaded"):
            return fragment
        info = stored_info(fragment["shard"])
        try:
            size = (self.folder / job.part / info["basename"]).stat().st_size
        except FileNotFoundError:
            return None
        return fragment if size == info["bytes"] else None

    def write(self, job: ShardJob) -> Written:
        """Write the shard under a temporary name; :meth:`finish` makes it count."""
        path = self.folder / job.part / f"shard.{job.number:05}.mds"
        temporary = temporary_name(path)
        rejected: dict[str, dict[str, Any]] = {}
        try:
            with open(self.records, "rb") as records, open(temporary, "w+b", buffering=0) as out:
                samples = [
                    (read_record(records, *place), image) for place, image in zip(job.records, job.images, strict=True)
                ]
                while True:
                    digest, bad, frames = self._write_samples(out, samples)
                    if not bad:
                        break
                    # Sizes precede the samples in the file, so it starts again without the bad ones.
                    rejected |= {line["id"]: line for line in bad.values()}
                    samples = [sample for number, sample in enumerate(samples) if number not in bad]
                    out.seek(0)
                    out.truncate()
                raw = file_info(path.name, out.tell(), digest)
            shard = self.layout.index_entry(len(samples), raw, self._compress(temporary, path.name))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fragment = {
            "shard": shard if samples else None,
            "ids": [record_id(record) for record, _ in samples],
            "rejected": list(rejected.values()),
            "frames": {kind: [len(ids), ids[0]] for kind, ids in frames.items()},
            "image_bytes": sum(size for _, (_, size, _) in samples),
        }
        return Written(temporary, fragment)

    def _compress(self, temporary: Path, name: str) -> dict[str, Any] | None:
        """Compress the file in place, if asked; gives the info of the result."""
        if self.layout.compression is None:
            return None
        data = compressor(self.layout.compression)(temporary.read_bytes())
        temporary.write_bytes(data)
        suffix = self.layout.compression.partition(":")[0]
        return file_info(f"{name}.{suffix}", len(data), xxhash.xxh128(data).hexdigest())

    def finish(self, job: ShardJob, written: Written) -> dict[str, Any]:
        """Bring the shard safely to the disk and to its name, and then its fragment.

        Mostly waiting for the disk, so the parent does it in threads while workers go on. Folders
        are flushed once, when the generation is closed: after a power cut a fragment that is not
        whole means that its shard is written again.

        Returns:
            The fragment: ``shard`` (its entry of index.json, None if no image was good), ``ids``,
            ``rejected`` (``id reason detail size mtime_ns``), ``frames`` (kind to count and example) and
            ``image_bytes``.
        """
        shard = written.fragment["shard"]
        if shard is None:
            written.temporary.unlink()
        else:
            sync_path(written.temporary)
            os.replace(written.temporary, self.folder / job.part / stored_info(shard)["basename"])
        # Not forced to disk: a fragment that is not whole means that its shard is written again.
        write_json(self.fragment_path(job), written.fragment, sync=False)
        return written.fragment

    def _write_samples(
        self, out: BinaryIO, samples: list[tuple[bytes, tuple[str, int, int]]]
    ) -> tuple[str, dict[int, dict[str, Any]], dict[str, list[str]]]:
        """The shard's bytes and their hash; after a first bad image only checks the rest.

        Returns:
            The hash, the rejected samples by their place, and the ids of samples by how annotation and picture go
            together, where it is not simply the same size.
        """
        sizes = [self.layout.sample_size(len(record), image[1]) for record, image in samples]
        digest = xxhash.xxh128()
        write_all(out, [self.layout.header(sizes)], digest)
        bad: dict[int, dict[str, Any]] = {}
        frames: dict[str, list[str]] = {}
        for number, (record, image) in enumerate(samples):
            files = images_of_row(image)
            try:
                self._check_names(record, [path for path, _, _ in files])
                picture = self._read_images(files)
                self._check_frames(record, picture, frames)
            except BadImage as error:
                # OTHER and TOO_MANY follow from keys, which may change.
                again = error.reason in (*PASSING, OTHER, TOO_MANY, OTHER_SUFFIX)
                bad[number] = {
                    "id": record_id(record),
                    "reason": error.reason,
                    "detail": error.detail or ", ".join(path for path, _, _ in files),
                    "size": RETRY_ALWAYS if again else image[1],
                    "mtime_ns": image[2],
                    **({"image": BETWEEN.join(name_of(path) for path, _, _ in files)} if self.layout.about else {}),
                }
                continue
            if not bad:
                latent = self.latents.latent(self.layout.sample(record, picture)) if self.latents else b""
                write_all(out, self.layout.sample_parts(record, picture, latent), digest)
        return digest.hexdigest(), bad, frames

    def _check_frames(self, record: bytes, picture: Picture, frames: dict[str, list[str]]) -> None:
        """Note under ``frames`` how pictures and annotation go together, by the sample's id. Of several pictures those
        with boxes count.

        Raises:
            BadImage: they do not.
        """
        sample = self.layout.sample(record, picture)
        pictures, boxes = [picture, *picture.more], sample["bbox"]
        owners = sample.get(ABOUT, {}).get(BOX_IMAGES) or [0] * len(boxes)
        for place in sorted({*owners} or {0}):
            own = [box for box, owner in zip(boxes, owners, strict=True) if owner == place]
            for kind in self._frames_of(pictures[place], sample[ANNOTATION_SIZE], own):
                ids = frames.setdefault(kind, [])
                if ids[-1:] != [sample["id"]]:
                    ids.append(sample["id"])

    def _frames_of(self, picture: Picture, annotated: list[int], boxes: list[list[float]]) -> Iterator[str]:
        """The kinds to note of one picture."""
        size = picture.width, picture.height
        kind = fit(annotated, size, lambda: orientation_of(picture.data))
        if kind == OTHER or (kind == SCALED and not self.rescale):
            hint = "; convert.rescale_boxes would take it" if kind == SCALED else ""
            detail = f"{size[0]} x {size[1]} pixels, annotated in {annotated[1]} x {annotated[0]}{hint}"
            raise BadImage(OTHER, detail)
        if kind == UNKNOWN and not boxes:
            return  # nothing to be out of place
        if kind != SAME:
            yield kind
        if kind == UNKNOWN and (odd := odd_boxes(boxes, size)):
            yield odd

    def _check_names(self, record: bytes, paths: list[str]) -> None:
        """Raise if the files are not those that the record names: two names may have one hash."""
        if not self.layout.about:
            check_name(record_id(record), image_id(printable(os.path.basename(paths[0]))), paths[0])
            return
        about = json.loads(split_record(record, self.layout.columns)[ABOUT])
        named = about.get("images") or ([about["image"]] if "image" in about else [])
        if len(named) != len(paths):
            check_name("\n".join(named), "\n".join(paths), ", ".join(paths))
        for full, path in zip(named, paths, strict=True):
            if same_kind(full) not in ("", same_kind(path)):
                raise BadImage(OTHER_SUFFIX, f"{full} is named, {path} is there")
            check_name(image_id(full), name_of(path), path)

    def _read_images(self, images: list[Image]) -> Picture:
        """The image files of a sample as one picture; of none an empty one."""
        if not images:
            return Picture(b"", 0, 0)
        first, *others = [self._read_image(*image) for image in images]
        return replace(first, more=tuple(others))

    def _read_image(self, path: str, size: int, mtime_ns: int) -> Picture:
        """The image file, if it is good and still the one that was scanned."""
        file, offset, _ = place_of(path)
        try:
            descriptor = os.open(self.images / file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise BadImage(GONE, path) from error
        except OSError as error:
            raise BadImage(UNREADABLE, f"{path}: {error.strerror}") from error
        try:
            status = os.fstat(descriptor)
            data = read_all(descriptor, size) if offset is None else os.pread(descriptor, size, offset)
        except OSError as error:
            raise BadImage(UNREADABLE, f"{path}: {error.strerror}") from error
        finally:
            os.close(descriptor)
        whole = status.st_size == size or offset is not None
        if not whole or status.st_mtime_ns != mtime_ns or len(data) != size:
            raise BadImage(CHANGED, path)
        return Picture(data, *check_image(data, image_suffix(path), self.decode, self.most_pixels))


GONE = "image went away while converting"
CHANGED = "image changed while converting"
UNREADABLE = "image cannot be read"
OTHER_SUFFIX = "image is there with another suffix only"
PASSING = (GONE, CHANGED, UNREADABLE)
"""Reasons that say nothing against the image: it may still be written later."""


def check_name(named: str, found: str, path: str) -> None:
    """Raise if an image's name is not the one that is named."""
    if named != found:
        raise BadImage("image belongs to another id with the same hash", path)


def name_of(path: str) -> str:
    """What an image of a table is called, as entries name it, without suffix."""
    return image_id(printable(place_of(path).name))


def same_kind(path: str) -> str:
    """A path's suffix, .jpeg as .jpg; "" if it has none of an image."""
    suffix = image_suffix(path)
    return {".jpeg": ".jpg"}.get(suffix, suffix) if suffix in IMAGE_SUFFIXES else ""


def read_record(records: BinaryIO, offset: int, length: int) -> bytes:
    records.seek(offset)
    return records.read(length)


def record_id(record: bytes) -> str:
    return record[: record.index(b"\t")].decode("utf-8")


def read_all(descriptor: int, size: int) -> bytes:
    """The file, up to one byte more than ``size``; a read may give less than asked for."""
    data = os.read(descriptor, size + 1)
    while 0 < len(data) <= size:
        more = os.read(descriptor, size + 1 - len(data))
        if not more:
            break
        data += more
    return data


def write_all(out: BinaryIO, parts: list[bytes], digest: Any) -> None:
    """Write every byte of ``parts`` in one call where the system lets it, and add them to the hash."""
    for part in parts:
        digest.update(part)
    total = sum(map(len, parts))
    written = os.writev(out.fileno(), parts)
    if written < total:
        rest = memoryview(b"".join(parts))[written:]
        while rest:
            rest = rest[os.write(out.fileno(), rest) :]
