"""One shard, from the catalog's records and the image files to a finished file: what a worker process does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from theworld.data.entries.check_entry import image_id
from theworld.data.entries.columns import ANNOTATION_SIZE, Picture
from theworld.data.entries.frame import OTHER, SAME, SCALED, UNKNOWN, fit, odd_boxes, orientation_of
from theworld.data.entries.headers import MOST_PIXELS, TOO_MANY, BadImage, check_image
from theworld.data.entries.scan import image_suffix, printable
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
            try:
                picture = self._read_image(record_id(record), *image)
                self._check_frame(record, picture, frames)
            except BadImage as error:
                again = error.reason in (*PASSING, OTHER, TOO_MANY)  # the last two follow from keys, which may change
                bad[number] = {
                    "id": record_id(record),
                    "reason": error.reason,
                    "detail": error.detail or image[0],
                    "size": RETRY_ALWAYS if again else image[1],
                    "mtime_ns": image[2],
                }
                continue
            if not bad:
                latent = self.latents.latent(self.layout.sample(record, picture)) if self.latents else b""
                write_all(out, self.layout.sample_parts(record, picture, latent), digest)
        return digest.hexdigest(), bad, frames

    def _check_frame(self, record: bytes, picture: Picture, frames: dict[str, list[str]]) -> None:
        """Note under ``frames`` how picture and annotation go together, by the sample's id.

        Raises:
            BadImage: they do not.
        """
        sample = self.layout.sample(record, picture)
        annotated, size = sample[ANNOTATION_SIZE], (picture.width, picture.height)
        kind = fit(annotated, size, lambda: orientation_of(picture.data))
        if kind == OTHER or (kind == SCALED and not self.rescale):
            hint = "; convert.rescale_boxes would take it" if kind == SCALED else ""
            detail = f"{size[0]} x {size[1]} pixels, annotated in {annotated[1]} x {annotated[0]}{hint}"
            raise BadImage(OTHER, detail)
        if kind == UNKNOWN and not sample["bbox"]:
            return  # nothing to be out of place
        if kind != SAME:
            frames.setdefault(kind, []).append(sample["id"])
        if kind == UNKNOWN and (odd := odd_boxes(sample["bbox"], size)):
            frames.setdefault(odd, []).append(sample["id"])

    def _read_image(self, entry_id: str, path: str, size: int, mtime_ns: int) -> Picture:
        """The image file, if it is good and still the one that was scanned."""
        try:
            descriptor = os.open(self.images / path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise BadImage(GONE, path) from error
        except OSError as error:
            raise BadImage(UNREADABLE, f"{path}: {error.strerror}") from error
        try:
            status = os.fstat(descriptor)
            data = read_all(descriptor, size)
        except OSError as error:
            raise BadImage(UNREADABLE, f"{path}: {error.strerror}") from error
        finally:
            os.close(descriptor)
        if (status.st_size, status.st_mtime_ns) != (size, mtime_ns) or len(data) != size:
            raise BadImage(CHANGED, path)
        if image_id(printable(os.path.basename(path))) != entry_id:
            raise BadImage("image belongs to another id with the same hash", path)
        return Picture(data, *check_image(data, image_suffix(path), self.decode, self.most_pixels))


GONE = "image went away while converting"
CHANGED = "image changed while converting"
UNREADABLE = "image cannot be read"
PASSING = (GONE, CHANGED, UNREADABLE)
"""Reasons that say nothing against the image: it may still be written later."""


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
