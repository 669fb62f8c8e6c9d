"""The shards are what streaming's own writer writes, and its own reader reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from raw_folder import Raw, entry, image_bytes, name
from streaming import MDSWriter, StreamingDataset

from theworld.data.entries.columns import MASKS, columns_with
from theworld.data.entries.headers import check_image
from theworld.data.shards.convert import convert


def as_written_by_streaming(raw: Raw, out: Path, keep_masks: bool, compression: str | None) -> None:
    columns = {column.name: column.encoding for column in columns_with(**{MASKS: keep_masks})}
    with MDSWriter(
        columns=columns, out=str(out), size_limit="16kb", hashes=["xxh128"], compression=compression
    ) as writer:
        for one in json.loads(raw.json.read_text()):
            data = (raw.images / f"{one['filename']}.jpg").read_bytes()
            width, height = check_image(data, ".jpg")
            sample = {
                "id": one["filename"],
                "image": data,
                "width": width,
                "height": height,
                "conversations": one["conversations"],
                "bbox": one["bbox"],
                "masks": one["rle"],
                "annotation_size": one["rle"][0]["size"] if one["rle"] else [],
            }
            writer.write({key: sample[key] for key in columns})


@pytest.mark.parametrize("keep_masks", [False, True])
@pytest.mark.parametrize("compression", [None, "zstd:3", "bz2", "snappy", "br:1"])
def test_same_bytes_as_streamings_writer(tmp_path: Path, keep_masks: bool, compression: str | None) -> None:
    raw = Raw(tmp_path / "raw", 30)
    raw.add_images(*range(30))
    convert(raw.config(keep_masks=keep_masks, compression=compression))
    as_written_by_streaming(raw, tmp_path / "expected", keep_masks, compression)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "expected").iterdir()}
    found = {path.name: path.read_bytes() for path in (raw.out / "gen-00000").iterdir() if path.name != "ids.txt"}
    assert len(expected) > 4
    assert found == expected


@pytest.mark.parametrize("compression", [None, "gz"])
def test_stock_reader_reads_all_generations(tmp_path: Path, compression: str | None) -> None:
    raw = Raw(tmp_path / "raw", 30)
    raw.add_images(*range(0, 30, 2))
    convert(raw.config(compression=compression))
    raw.add_images(*range(1, 30, 2))
    convert(raw.config(compression=compression))
    data_set = StreamingDataset(local=str(raw.out), shuffle=False, batch_size=1, validate_hash="xxh128")
    order = [*range(0, 30, 2), *range(1, 30, 2)]
    assert len(data_set) == 30
    for place, number in enumerate(order):
        sample, expected = data_set[place], entry(number)
        data = image_bytes(number)
        assert sample["id"] == name(number)
        assert sample["image"] == data
        assert (sample["width"], sample["height"]) == check_image(data, ".jpg")
        assert sample["conversations"] == expected["conversations"]
        assert sample["bbox"] == expected["bbox"]


def test_one_generation_is_a_data_set_of_its_own(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw", 30)
    raw.add_images(*range(0, 30, 2))
    convert(raw.config())
    raw.add_images(1, 3)
    convert(raw.config())
    data_set = StreamingDataset(local=str(raw.out / "gen-00001"), shuffle=False, batch_size=1)
    assert [data_set[place]["id"] for place in range(len(data_set))] == [name(1), name(3)]


def test_an_image_larger_than_the_limit_has_a_shard_of_its_own(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw", 5)
    raw.add_images(*range(5))
    large = image_bytes(2, "JPEG", (420, 320))
    assert len(large) > 16 << 10
    (raw.images / f"{name(2)}.jpg").write_bytes(large)
    convert(raw.config())
    data_set = StreamingDataset(local=str(raw.out), shuffle=False, batch_size=1)
    assert data_set[2]["image"] == large
    assert [shard.samples for shard in data_set.shards] == [2, 1, 2]
