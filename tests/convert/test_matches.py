"""How many samples a data set may yet have, as its manifest says."""

from __future__ import annotations

import json
from pathlib import Path

from tests.convert.raw_folder import Raw, entry, image_bytes, name
from theworld.data.shards.convert import convert


def samples_to_be(folder: Path) -> int:
    return json.loads((folder / "manifest.json").read_text())["json_samples"]


def test_what_has_not_arrived_counts_and_what_was_rejected_does_not(tmp_path: Path) -> None:
    raw = Raw(tmp_path, 6)
    broken = entry(7, bbox=[[1.0, 2.0, 3.0, 4.0]] * 9)
    raw.write_json([*(entry(number) for number in range(6)), broken, entry(5)])
    raw.add_images(0, 1, 2)
    (raw.images / f"{name(3)}.jpg").write_bytes(image_bytes(3)[:200])
    convert(raw.config())
    assert samples_to_be(raw.out) == 5
    (raw.images / f"{name(3)}.jpg").write_bytes(image_bytes(3))
    convert(raw.config())
    assert samples_to_be(raw.out) == 6


def test_what_the_download_has_found_missing_for_good_does_not_count(tmp_path: Path) -> None:
    raw = Raw(tmp_path, 6)
    raw.add_images(0, 1, 2)
    lines = [json.dumps({"id": name(number), "status": 404}) for number in (2, 4, 5)]
    (raw.images / "missing.jsonl").write_text("\n".join(lines) + "\n")
    convert(raw.config())
    assert samples_to_be(raw.out) == 4, "image 2 has come in another way"


def test_an_image_that_could_not_be_read_may_be_written_yet(tmp_path: Path) -> None:
    raw = Raw(tmp_path, 3)
    raw.add_images(0, 1)
    (raw.images / f"{name(2)}.jpg").symlink_to("/proc/self/mem")  # whoever reads it at 0 gets an input/output error
    report = convert(raw.config())
    assert report.left_out["image cannot be read"] == 1
    assert samples_to_be(raw.out) == 3


def test_each_part_counts_its_own(tmp_path: Path) -> None:
    raw = Raw(tmp_path, 40)
    raw.add_images(*range(0, 40, 2))
    report = convert(raw.config(holdout=0.3))
    held_out = samples_to_be(raw.out.with_name("out-eval"))
    assert held_out > report.held_out > 0
    assert samples_to_be(raw.out) + held_out == 40


def test_no_more_is_to_be_than_was_asked_for(tmp_path: Path) -> None:
    raw = Raw(tmp_path, 40)
    raw.add_images(*range(10))
    convert(raw.config(num_samples=8))
    assert samples_to_be(raw.out) == 8
    convert(raw.config(num_samples=20))
    assert samples_to_be(raw.out) == 20
