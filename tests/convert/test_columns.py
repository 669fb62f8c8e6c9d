"""A shard column is one entry of the table; the catalog, the shard and its reader follow from it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from raw_folder import Raw
from streaming import StreamingDataset

from theworld.data.shards.convert import convert

WITH_COLUMNS = """
import json
import sys
from operator import attrgetter, itemgetter
from theworld.data.entries import columns
from theworld.data.entries.columns import Column, Origin
columns.COLUMNS += (
    Column("annotator", "json", Origin.ENTRY, itemgetter("annotator")),
    Column("also_wide", "int32", Origin.IMAGE, attrgetter("width")),
)
if __name__ == "__main__":  # the converter's processes import this file too, and have the columns
    from theworld.config.schema import ConvertConfig
    from theworld.data.shards.convert import convert
    convert(ConvertConfig(**json.loads(sys.argv[1])))
"""


def with_annotators(tmp_path: Path, images: int) -> tuple[Raw, list[list[str]]]:
    """30 entries, each with a key of its own as a richer data set has, and the values in order."""
    raw = Raw(tmp_path / "raw", 30)
    raw.add_images(*range(images))
    entries = json.loads(raw.json.read_text())
    for number, entry in enumerate(entries):
        entry["annotator"] = [f"team\t{number}"]
    raw.json.write_text(json.dumps(entries))
    return raw, [entry["annotator"] for entry in entries]


def convert_with_columns(raw: Raw, tmp_path: Path) -> None:
    script = tmp_path / "with_columns.py"
    script.write_text(WITH_COLUMNS)
    subprocess.run([sys.executable, str(script), json.dumps(asdict(raw.config()))], check=True)


def read(raw: Raw) -> StreamingDataset:
    return StreamingDataset(local=str(raw.out), shuffle=False, batch_size=1, validate_hash="xxh128")


def test_a_column_is_one_entry_of_the_table(tmp_path: Path) -> None:
    raw, annotators = with_annotators(tmp_path, images=30)
    convert_with_columns(raw, tmp_path)
    data_set = read(raw)
    samples = [data_set[place] for place in range(30)]
    assert [sample["annotator"] for sample in samples] == annotators
    assert [sample["also_wide"] for sample in samples] == [sample["width"] for sample in samples]
    # The plan cuts shards by the sizes that it counts: had it missed the new columns, one would outgrow its limit.
    assert len(data_set.shards) > 1
    assert all(shard.raw_data.bytes <= 16 << 10 for shard in data_set.shards)


def test_a_new_column_of_the_entry_reads_the_file_anew(tmp_path: Path) -> None:
    """Records of before do not have it: generations written from now on do, older ones stay as they are."""
    raw, annotators = with_annotators(tmp_path, images=15)
    convert(raw.config())
    raw.add_images(*range(15, 30))
    convert_with_columns(raw, tmp_path)
    data_set = read(raw)
    samples = [data_set[place] for place in range(30)]
    assert [sample.get("annotator") for sample in samples] == [None] * 15 + annotators[15:]
