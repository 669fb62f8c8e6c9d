"""What the converter writes is plain MDS: libraries that know nothing of this recipe read the same samples."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from streaming import StreamingDataset

from tests.conftest import smoke_config
from tests.helpers.extras import needs_extra
from theworld.data.shards.convert import convert

COLUMNS = {"id", "image", "width", "height", "conversations", "bbox", "annotation_size"}


@pytest.fixture(scope="module")
def packed(raw_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in sample as a data set with compressed shards."""
    out = tmp_path_factory.mktemp("packed") / "mds"
    convert(smoke_config(raw_sample, out, "convert.compression=zstd").convert)
    return out


def stock(folder: Path, scratch: Path) -> dict[str, dict[str, Any]]:
    """The samples by id, as Streaming's own class reads a copy of a folder: it unpacks shards where they lie."""
    local = scratch / "stock"
    shutil.copytree(folder, local)
    samples = list(StreamingDataset(local=str(local), shuffle=False, batch_size=1, validate_hash="xxh128"))
    return {sample["id"]: sample for sample in samples}


def test_streamings_own_class_reads_what_was_converted(raw_sample: Path, packed: Path, tmp_path: Path) -> None:
    entries = {entry["filename"].removesuffix(".jpg"): entry for entry in read_entries(raw_sample)}
    samples = stock(packed, tmp_path)
    assert samples.keys() == entries.keys()
    for name, sample in samples.items():
        assert sample.keys() == COLUMNS
        assert sample["image"] == (raw_sample / "images" / f"{name}.jpg").read_bytes()
        assert sample["conversations"] == entries[name]["conversations"]
        assert sample["bbox"] == entries[name]["bbox"]


def read_entries(raw: Path) -> list[dict[str, Any]]:
    return json.loads((raw / "openspatial.json").read_text())


@needs_extra("benchmark", "litdata")
def test_litdata_reads_a_generation(packed: Path, tmp_path: Path) -> None:
    """LitData knows MDS, compressed and in one folder, and not the encodings ``json`` and ``int32``."""
    import litdata  # pyright: ignore[reportMissingImports] -- an extra; the linters run without it
    from litdata.streaming.serializers import Serializer  # pyright: ignore[reportMissingImports]

    class Json(Serializer):
        def deserialize(self, data: bytes) -> Any:
            return json.loads(data)

        def serialize(self, data: Any) -> Any:
            raise AssertionError("nothing is written here")

        def can_serialize(self, data: Any) -> bool:
            return False

    class Int32(Json):
        size = 4

        def deserialize(self, data: bytes) -> int:
            return struct.unpack("<i", data)[0]

    generation = tmp_path / "gen"
    shutil.copytree(packed / "gen-00000", generation)  # it unpacks where the shards lie, and deletes what was packed
    reader = litdata.StreamingDataset(str(generation), shuffle=False, serializers={"json": Json(), "int32": Int32()})
    samples = {sample["id"]: sample for sample in reader}
    assert samples == stock(packed, tmp_path)
    assert len(samples) == 26
