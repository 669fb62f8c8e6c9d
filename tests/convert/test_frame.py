"""Picture and annotation held together: scaled copies, pictures stored turned, other pictures."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raw_folder import Raw, entry, hashes, name
from streaming import MDSWriter, StreamingDataset

from theworld.data.entries.frame import OTHER, SAME, SCALED, TURNED, UNKNOWN, annotation_size, fit
from theworld.data.samples import decode_sample
from theworld.data.shards.convert import convert
from theworld.data.shards.dataset import DataSet

BOX = [100.0, 50.0, 200.0, 150.0]
QUESTION = [{"from": "human", "value": "<image>\nHow wide is <mask> <depth>?"}, {"from": "gpt", "value": "1 m."}]


def annotated(number: int, height: int | None, width: int = 400, box: list[float] = BOX) -> dict[str, Any]:
    masks = [] if height is None else [{"size": [height, width], "counts": "b"}]
    return entry(number, conversations=QUESTION, bbox=[box], rle=masks)


def picture(size: tuple[int, int], orientation: int = 1) -> bytes:
    """White but for its left upper quarter, which is black, as stored."""
    pixels = np.full((size[1], size[0], 3), 255, np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif, quality=95)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("annotation", "stored", "orientation", "kind"),
    [
        ([300, 400], (400, 300), 1, SAME),
        ([683, 1024], (512, 341), 1, SCALED),
        ([683, 1024], (512, 342), 1, SCALED),
        ([683, 1024], (2048, 1366), 1, SCALED),
        ([683, 1024], (512, 345), 1, OTHER),
        ([1024, 683], (1024, 683), 6, TURNED),
        ([1024, 683], (512, 342), 8, TURNED),
        ([1024, 683], (1024, 683), 1, OTHER),
        ([1024, 683], (1024, 683), 3, OTHER),
        ([400, 400], (400, 400), 6, SAME),
        ([], (400, 300), 1, UNKNOWN),
        (None, (400, 300), 1, UNKNOWN),
    ],
)
def test_kinds(annotation: list[int] | None, stored: tuple[int, int], orientation: int, kind: str) -> None:
    assert fit(annotation, stored, lambda: orientation) == kind


@pytest.mark.parametrize(
    ("masks", "size"),
    [
        ([{"size": [3, 4]}, {"size": [3, 4]}], [3, 4]),
        ([{"size": [3, 4]}, {"size": [4, 3]}], []),
        ([{"size": [3, 4]}, {}], []),
        ([{"size": [3, 0]}], []),
        ([{"size": [True, 4]}], []),
        (["b"], []),
        ([], []),
        (None, []),
        ("rle", []),
    ],
)
def test_the_size_is_what_all_masks_agree_on(masks: Any, size: list[int]) -> None:
    assert annotation_size({"rle": masks}) == size


def converted(folder: Path, entries: list[dict[str, Any]], files: list[bytes], **settings: Any) -> tuple[Raw, Any]:
    raw = Raw(folder, entries=0)
    raw.write_json(entries)
    for one, data in zip(entries, files, strict=True):
        (raw.images / f"{one['filename']}.jpg").write_bytes(data)
    return raw, convert(raw.config(size_limit="1mb", **settings))


def test_boxes_are_scaled_and_pictures_turned_when_a_sample_is_decoded(tmp_path: Path) -> None:
    entries = [annotated(0, 300), annotated(1, 300), annotated(2, 400, 300), annotated(3, 999)]
    files = [picture((400, 300)), picture((200, 150)), picture((400, 300), 6), picture((400, 300))]
    raw, report = converted(tmp_path / "raw", entries, files)
    assert raw.rejected() == {name(3): OTHER}
    assert report.frames.counts == {SCALED: 1, TURNED: 1}
    assert f"{SCALED}" in report.table()
    samples = list(StreamingDataset(local=str(raw.out), batch_size=1))
    assert [sample["annotation_size"] for sample in samples] == [[300, 400], [300, 400], [400, 300]]
    assert [(sample["width"], sample["height"]) for sample in samples] == [(400, 300), (200, 150), (400, 300)]
    assert all(sample["bbox"] == [BOX] for sample in samples)
    decoded = [decode_sample(sample, draw_bboxes=True).image for sample in samples]
    assert [image.size for image in decoded] == [(400, 300), (200, 150), (300, 400)]
    for image, (x, y) in zip(decoded, [(100, 120), (50, 60), (100, 120)], strict=True):
        assert coloured(image, x, y)  # on the box's left edge
    plain = decode_sample(samples[2], draw_bboxes=False).image
    assert plain.getpixel((290, 10)) == (0, 0, 0)  # what was left above as stored is right above now


def coloured(image: Image.Image, x: int, y: int) -> bool:
    red, green, blue = np.array(image.crop((x - 1, y - 1, x + 2, y + 2)), int).reshape(-1, 3).T
    return bool((np.abs(red - blue) + np.abs(green - blue)).max() > 60)


def test_on_request_a_scaled_copy_is_rejected_and_taken_once_it_may_be(tmp_path: Path) -> None:
    raw, report = converted(tmp_path / "raw", [annotated(0, 300), annotated(1, 300)], [picture((400, 300))] * 2)
    (raw.images / f"{name(0)}.jpg").write_bytes(picture((200, 150)))
    again = convert(raw.config(out=str(tmp_path / "strict"), rescale_boxes=False))
    assert (report.written, again.written, again.left_out[OTHER]) == (2, 1, 1)
    assert convert(raw.config(out=str(tmp_path / "strict"))).written == 1


@pytest.mark.parametrize(
    ("box", "said"), [([500.0, 50.0, 900.0, 150.0], "reach far beyond"), ([0.1, 0.2, 0.5, 1.0], "within 0..1")]
)
def test_without_sizes_boxes_of_other_pictures_are_a_warning_with_an_example(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, box: list[float], said: str
) -> None:
    entries = [annotated(0, None), annotated(1, None, box=box)]
    with caplog.at_level(logging.WARNING):
        _, report = converted(tmp_path / "raw", entries, [picture((400, 300))] * 2)
    assert report.frames.counts[UNKNOWN] == report.written == 2
    assert f"1 samples: boxes {said}" in caplog.text.replace("boxes lie", "boxes")
    assert name(1) in caplog.text


def data_set_of_before(
    folder: Path, samples: list[tuple[dict[str, Any], bytes]], compression: str | None = None
) -> None:
    """A generation as releases wrote it that kept no size of the annotation."""
    columns = {"id": "str", "image": "bytes", "width": "int32", "height": "int32", "conversations": "json"}
    layout: dict[str, Any] = {"columns": {**columns, "bbox": "json"}, "hashes": ["xxh128"], "compression": compression}
    with MDSWriter(out=str(folder / "gen-00000"), **layout) as writer:
        for one, image in samples:
            width, height = Image.open(io.BytesIO(image)).size
            texts = {"conversations": one["conversations"], "bbox": one["bbox"]}
            writer.write({"id": one["filename"], "image": image, "width": width, "height": height, **texts})
    (folder / "gen-00000" / "ids.txt").write_text("".join(f"{one['filename']}\n" for one, _ in samples))
    DataSet(folder).refresh({"keep_masks": False, "holdout": 0.0, "world_latents": None})


@pytest.mark.parametrize("compression", [None, "zstd:1", "gz"])
def test_samples_of_before_are_held_against_the_json_once_and_read_as_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, compression: str | None
) -> None:
    entries = [annotated(0, 300), annotated(1, 300), annotated(2, 400, 300), annotated(3, 999), annotated(4, None)]
    files = [picture((400, 300)), picture((200, 150)), picture((400, 300), 6), picture((400, 300)), picture((400, 300))]
    gone = annotated(9, 300), picture((400, 300))
    raw = Raw(tmp_path / "raw", entries=0)
    data_set_of_before(raw.out, [*zip(entries, files, strict=True), gone], compression)
    before = hashes(raw.out / "gen-00000")
    raw.write_json(entries)
    with caplog.at_level(logging.WARNING):
        report = convert(raw.config())
    found = {kind: count for kind, (count, _) in report.frames.before.items()}
    assert found == {SCALED: 1, TURNED: 1, OTHER: 1, UNKNOWN: 1}
    said = "3 samples of earlier generations have boxes of another size of their picture, for example"
    assert f"{said} {name(1)}; shards never change: to have them right, convert into a new data set" in caplog.text
    assert "of before: boxes of another picture" in report.table()
    assert f"lacks 1 of the 6 samples of {raw.out}, such as {name(9)}; they stay" in caplog.text
    (shard,) = (raw.out / "gen-00000").glob("shard.00000.mds*")
    shard.rename(raw.folder / "away")
    assert convert(raw.config()).frames.before == report.frames.before, "checked once"
    (raw.folder / "away").rename(shard)
    assert hashes(raw.out / "gen-00000") == before
    sample = next(iter(StreamingDataset(local=str(raw.out), batch_size=1)))
    assert decode_sample(sample).image.size == (400, 300)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_packed_shard_of_before_that_cannot_be_read_counts_as_not_checked(tmp_path: Path, damage: str) -> None:
    raw = Raw(tmp_path / "raw", entries=0)
    data_set_of_before(raw.out, [(annotated(1, 300), picture((200, 150)))], "zstd:1")
    (shard,) = (raw.out / "gen-00000").glob("shard.00000.mds.zstd")
    shard.write_bytes(shard.read_bytes()[:-9])
    if damage == "gone":
        shard.unlink()
    raw.write_json([annotated(1, 300)])
    assert convert(raw.config()).frames.before == {UNKNOWN: [1, ""]}


def test_a_box_wholly_outside_the_picture_is_an_irregularity() -> None:
    sample = {"id": "a", "image": picture((400, 300)), "width": 400, "height": 300, "conversations": QUESTION}
    problems = [decode_sample({**sample, "bbox": [box]}).problems for box in ([401, 0, 500, 9], [399, 0, 500, 9], BOX)]
    assert problems == [["box 0: lies outside the picture"], [], []]


def test_grey_of_sixteen_bits_is_scaled(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.array([[0, 255, 32768, 65535]], np.uint16)).save(stream, "PNG")
    sample = {"id": "a", "image": stream.getvalue(), "width": 4, "height": 1, "conversations": QUESTION, "bbox": []}
    image = decode_sample(sample, draw_bboxes=False).image
    assert [image.getpixel((x, 0)) for x in range(4)] == [(0,) * 3, (0,) * 3, (128,) * 3, (255,) * 3]
