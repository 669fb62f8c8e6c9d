"""The converter as its users meet it: what is written, what is left out and why, growth, order, workers."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from raw_folder import STATE, Raw, entry, hashes, image_bytes, name

from theworld.data.shards.convert import convert
from theworld.errors import UserError


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    made = Raw(tmp_path / "raw")
    made.add_images(*range(0, 40, 2))
    return made


def test_writes_the_entries_whose_image_is_there_in_their_order(raw: Raw) -> None:
    report = convert(raw.config())
    assert raw.ids() == [name(number) for number in range(0, 40, 2)]
    assert (report.entries, report.images, report.written) == (40, 20, 20)
    assert report.left_out == {"image not there yet": 20}
    manifest = json.loads((raw.out / "manifest.json").read_text())
    assert manifest["samples"] == 20
    assert manifest["json_entries"] == 40
    (generation,) = manifest["generations"]
    stored = list((raw.out / "gen-00000").glob("*.mds"))
    assert generation["samples"] == 20
    assert generation["shards"] == len(stored) > 2
    assert generation["bytes"] == sum(path.stat().st_size for path in stored)
    assert all(path.stat().st_size <= 16 << 10 for path in stored)


def test_growth_adds_a_generation_and_leaves_the_old_one_alone(raw: Raw) -> None:
    convert(raw.config())
    before = hashes(raw.out / "gen-00000")
    times = {path: path.stat().st_mtime_ns for path in (raw.out / "gen-00000").iterdir()}
    raw.add_images(1, 3, 39)
    report = convert(raw.config())
    assert (report.before, report.written, report.generations) == (20, 3, ["out/gen-00001"])
    assert hashes(raw.out / "gen-00000") == before
    assert {path: path.stat().st_mtime_ns for path in (raw.out / "gen-00000").iterdir()} == times
    assert raw.ids()[20:] == [name(1), name(3), name(39)]


def test_nothing_new_changes_nothing_and_says_so(raw: Raw) -> None:
    convert(raw.config())
    before = {path: path.stat().st_mtime_ns for path in raw.out.rglob("*") if path.name != "rejected.jsonl"}
    raw_hashes = hashes(raw.out)
    report = convert(raw.config())
    assert "nothing new to convert" in report.table()
    assert hashes(raw.out) == raw_hashes
    after = {path: path.stat().st_mtime_ns for path in raw.out.rglob("*") if path.name != "rejected.jsonl"}
    unchanged = {path for path in before if after[path] == before[path]}
    assert {path for path in before if path.suffix == ".mds"} <= unchanged


def test_a_later_run_does_not_read_the_json_again(raw: Raw) -> None:
    convert(raw.config())
    status = raw.json.stat()
    raw.json.write_bytes(b"x" * status.st_size)  # unreadable now, but by size and time the same file
    os.utime(raw.json, ns=(status.st_atime_ns, status.st_mtime_ns))
    raw.add_images(5)
    assert convert(raw.config()).written == 1
    assert raw.ids()[-1] == name(5)


def test_a_changed_json_is_read_again(raw: Raw) -> None:
    convert(raw.config())
    raw.write_json([entry(number) for number in range(60)])
    raw.add_images(50)
    report = convert(raw.config())
    assert (report.entries, report.written) == (60, 1)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_bytes_do_not_depend_on_workers(raw: Raw, tmp_path: Path, workers: int) -> None:
    (raw.images / f"{name(4)}.jpg").write_bytes(b"")
    convert(raw.config(workers=3))
    convert(raw.config(workers=workers, out=str(tmp_path / "other")))
    assert hashes(tmp_path / "other") == hashes(raw.out)


def test_bytes_do_not_depend_on_the_order_of_the_listing(raw: Raw, tmp_path: Path) -> None:
    convert(raw.config())
    paths = sorted(raw.images.iterdir())
    random.Random(3).shuffle(paths)
    other = Raw(tmp_path / "other")
    for path in paths:  # made in another order, in other folders
        folder = other.images / path.stem[-1] / path.stem[-2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    convert(other.config())
    assert hashes(other.out) == hashes(raw.out)


def test_an_id_with_two_files_uses_the_same_one_whatever_the_listing(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw", 2)
    raw.add_images(0, 1)
    for folder in ("b", "a"):
        (raw.images / folder).mkdir()
        (raw.images / folder / f"{name(1)}.jpg").write_bytes(image_bytes(7))
    (raw.images / f"{name(1)}.png").write_bytes(image_bytes(8, "PNG"))
    report = convert(raw.config(image_folders=[".", "*"]))
    assert (report.images, report.written) == (5, 2)
    shard = (raw.out / "gen-00000" / "shard.00000.mds").read_bytes()
    assert image_bytes(1) in shard


def test_temporary_and_other_files_are_not_images(raw: Raw) -> None:
    data = image_bytes(1)
    for file in (f"{name(1)}.jpg.part", f".{name(1)}.jpg", f"{name(1)}.jpg.tmp", f"{name(1)}.txt", name(1)):
        (raw.images / file).write_bytes(data)
    (raw.images / ".partial").mkdir()
    (raw.images / ".partial" / f"{name(1)}.jpg").write_bytes(data)
    (raw.images / "loop").symlink_to(raw.images)
    report = convert(raw.config())
    assert (report.images, report.written) == (20, 20)


def test_bad_images_are_listed_with_reasons_and_tried_again_when_they_change(raw: Raw) -> None:
    bad = {
        0: (b"", "image file is empty"),
        2: (image_bytes(2)[:300], "image is cut short"),
        4: (image_bytes(4, "PNG"), "image is wrongly named"),
        6: (b"<html>", "not an image"),
    }
    for number, (data, _) in bad.items():
        (raw.images / f"{name(number)}.jpg").write_bytes(data)
    report = convert(raw.config())
    assert raw.rejected() == {name(number): reason for number, (_, reason) in bad.items()}
    assert report.written == 16
    assert sum(report.left_out.values()) + report.written == report.entries
    assert "nothing new" in convert(raw.config()).table()

    (raw.images / f"{name(2)}.jpg").write_bytes(image_bytes(2))
    (raw.images / f"{name(4)}.jpg").write_bytes(b"still not one")
    assert convert(raw.config()).written == 1
    assert raw.ids()[-1] == name(2)
    assert raw.rejected()[name(4)] == "not an image"
    assert name(2) not in raw.rejected()


def test_a_shard_of_bad_images_only_is_left_out(raw: Raw) -> None:
    for path in raw.images.iterdir():
        path.write_bytes(b"no")
    report = convert(raw.config())
    assert report.written == 0
    assert not list(raw.out.glob("gen-*"))
    (raw.images / f"{name(8)}.jpg").write_bytes(image_bytes(8))
    assert convert(raw.config()).generations == ["out/gen-00000"]


def test_full_decoding_on_request(raw: Raw) -> None:
    damaged = bytearray(image_bytes(2, "PNG", (420, 320)))
    damaged[len(damaged) // 2] ^= 0xFF
    (raw.images / f"{name(2)}.jpg").unlink()
    (raw.images / f"{name(2)}.png").write_bytes(damaged)
    assert convert(raw.config(out=str(raw.folder / "header"))).written == 20
    assert convert(raw.config(verify="decode")).written == 19
    assert raw.rejected() == {name(2): "image does not decode"}


def test_bad_entries_are_counted_and_the_rest_is_used(raw: Raw) -> None:
    entries = [entry(number) for number in range(10)]
    entries += [entry(2), entry(2, filename="a/b"), entry(12, bbox=[[1, 2, 3, 4]]), {"filename": name(14)}, 7]
    raw.write_json(entries)
    report = convert(raw.config())
    assert report.written == 5
    assert report.left_out == {
        "id named more than once": 1,
        "file name has a path in it": 1,
        "more boxes than <mask> tokens": 1,
        "entry lacks a key": 1,
        "entry is not an object": 1,
        "image not there yet": 5,
    }
    assert set(raw.rejected().values()) == set(report.left_out) - {"image not there yet", "id named more than once"}


def test_counts_add_up_when_images_have_gone(raw: Raw) -> None:
    (raw.images / f"{name(2)}.jpg").write_bytes(b"bad")
    convert(raw.config())
    for number in (0, 2, 4):
        (raw.images / f"{name(number)}.jpg").unlink()
    report = convert(raw.config())
    assert report.before == 19
    assert report.left_out == {"image not there yet": 21}
    assert raw.rejected() == {}


def test_an_output_that_cannot_be_made_is_one_line(raw: Raw) -> None:
    with pytest.raises(UserError, match="Not a directory"):
        convert(raw.config(out=str(raw.json / "out")))


def test_num_samples_counts_what_is_there(raw: Raw) -> None:
    (raw.images / f"{name(0)}.jpg").write_bytes(b"bad")
    assert convert(raw.config(num_samples=7)).written == 7
    assert raw.ids() == [name(number) for number in range(2, 16, 2)]
    assert convert(raw.config(num_samples=7)).written == 0
    assert convert(raw.config(num_samples=9)).written == 2


def test_held_out_share_follows_from_the_id_alone(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw", 200)
    raw.add_images(*range(0, 200, 2))
    first = convert(raw.config(holdout=0.3))
    held_out = set((raw.folder / "out-eval" / "gen-00000" / "ids.txt").read_text().split())
    assert first.held_out == len(held_out)
    assert 15 < len(held_out) < 45
    assert held_out.isdisjoint(raw.ids())
    raw.add_images(*range(1, 200, 2))
    convert(raw.config(holdout=0.3))

    at_once = Raw(tmp_path / "at once", 200)
    at_once.add_images(*range(200))
    convert(at_once.config(holdout=0.3))
    assert sorted(at_once.ids()) == sorted(raw.ids())
    manifest = json.loads((raw.folder / "out-eval" / "manifest.json").read_text())
    assert [generation["name"] for generation in manifest["generations"]] == ["gen-00000", "gen-00001"]
    assert manifest["samples"] + len(raw.ids()) == 200


def test_lost_id_lists_are_read_from_the_shards(raw: Raw) -> None:
    convert(raw.config())
    (raw.out / "gen-00000" / "ids.txt").unlink()
    assert convert(raw.config()).written == 0


@pytest.mark.parametrize(("key", "value"), [("keep_masks", True), ("holdout", 0.5)])
def test_settings_that_must_last_cannot_change(raw: Raw, key: str, value: object) -> None:
    convert(raw.config())
    with pytest.raises(UserError, match=rf"convert\.{key}.*another folder"):
        convert(raw.config(**{key: value}))


def test_a_lost_generation_is_an_error(raw: Raw) -> None:
    convert(raw.config())
    (raw.out / "gen-00000").rename(raw.folder / "elsewhere")
    with pytest.raises(UserError, match=r"gen-00000 is in manifest\.json but not there"):
        convert(raw.config())


def test_a_folder_with_another_data_set_is_left_alone(raw: Raw) -> None:
    raw.out.mkdir()
    (raw.out / "index.json").write_text('{"version": 2, "shards": []}')
    with pytest.raises(UserError, match="choose another folder"):
        convert(raw.config())


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"json": "/nowhere.json"}, "convert.json"),
        ({"json": "???"}, "convert.json"),
        ({"json": "hf://datasets/only-one"}, "convert.json"),
        ({"json": "s3://bucket/entries.json"}, "convert.json"),
        ({"images": "/nowhere"}, "convert.images"),
        ({"out": ""}, "convert.out"),
        ({"out": "ftp://host/out"}, "convert.out"),
        ({"verify": "twice"}, "convert.verify"),
        ({"holdout": 1.0}, "convert.holdout"),
        ({"holdout": -0.1}, "convert.holdout"),
        ({"workers": 0}, "convert.workers"),
        ({"num_samples": 0}, "convert.num_samples"),
        ({"size_limit": "64 parsecs"}, "convert.size_limit"),
        ({"size_limit": "8gb"}, "convert.size_limit"),
        ({"size_limit": 1}, "convert.size_limit"),
        ({"compression": "zstd:99"}, "convert.compression"),
        ({"compression": "zip"}, "convert.compression"),
        ({"compression": "zstd:x"}, "convert.compression"),
    ],
)
def test_impossible_settings_name_their_key(raw: Raw, changes: dict[str, object], key: str) -> None:
    with pytest.raises(UserError) as caught:
        convert(raw.config(**changes))
    assert str(caught.value).startswith(key)
    assert "\n" not in str(caught.value)


def test_no_image_at_all(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw")
    with pytest.raises(UserError, match=r"convert\.images: .*no \.jpg"):
        convert(raw.config())


def test_no_match_shows_what_the_names_look_like(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw")
    (raw.images / "cat-1.jpg").write_bytes(image_bytes(1))
    with pytest.raises(UserError, match=f"like {name(0)}, the folder has files like cat-1.jpg"):
        convert(raw.config())


def test_no_usable_entry(raw: Raw) -> None:
    raw.write_json([{"filename": "a"}])
    with pytest.raises(UserError, match="no usable entry among 1: 1 x entry lacks a key"):
        convert(raw.config())


def test_entries_under_another_key_s_name_show_which(raw: Raw) -> None:
    raw.write_json([{"image": one.pop("filename"), **one} for one in [entry(1), entry(2)]])
    with pytest.raises(UserError, match="lacks a key: filename; it has 'image', 'conversations'"):
        convert(raw.config(format="openspatial"))


def test_what_cannot_be_parsed_is_counted_and_named_and_the_rest_is_written(raw: Raw) -> None:
    """Damage still ends with a line that asks for the file again; a number too large is the entry's own affair."""
    raw.add_images(0, 1, 2, 3)
    texts = [json.dumps(entry(number)) for number in range(4)]
    texts[1] = texts[1].replace("1.0,", "NaN,")
    raw.json.write_text("[" + ",".join(texts) + "]")
    report = convert(raw.config())
    assert (report.broken, report.written) == (None, 3)
    assert raw.rejected() == {name(1): "a box is not four numbers"}
    texts[2] = texts[2].replace("[[", "[[x")
    raw.json.write_text("[" + ",".join(texts) + "]")
    report = convert(raw.config(out=str(raw.folder / "again")))
    assert "at byte" in str(report.broken)
    assert report.written == 2


def test_command_prints_the_counts(raw: Raw) -> None:
    done = raw.run()
    assert done.returncode == 0, done.stderr
    rows = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines()[:5])
    assert rows == {
        "entries read": "40",
        "images found": "20",
        "already there": "0",
        "written": "20",
        "left out: image not there yet": "20",
    }
    assert "images/s" in done.stdout


def test_command_on_a_cut_json_keeps_what_was_good(raw: Raw) -> None:
    text = raw.json.read_text()
    cut = text.index(name(21)) - 5
    raw.json.write_text(text[:cut])
    for _ in range(2):  # the second run has read it before
        done = raw.run()
        assert done.returncode == 2
        assert done.stderr.count("error:") == 1
        assert f"at byte {len(text[:cut].encode())}" in done.stderr
        assert raw.ids() == [name(number) for number in range(0, 21, 2)]
    raw.json.write_text(text)
    assert raw.run().returncode == 0
    assert raw.ids() == [name(number) for number in range(0, 40, 2)]


def test_command_needs_no_torch(raw: Raw) -> None:
    done = raw.run(env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}
    assert "theworld.data.shards.convert" in imported
    assert imported.isdisjoint({"torch", "streaming", "composer", "transformers"})


def test_a_link_to_itself_among_the_images_is_counted_and_the_rest_is_written(raw: Raw) -> None:
    (raw.images / "loop").symlink_to("loop")
    report = convert(raw.config())
    assert (report.unreadable, report.written) == (1, 20)
    assert "folders that cannot be read" in report.table()


def test_another_file_is_not_converted_into_the_same_folder(tmp_path: Path) -> None:
    """It would go in by the side of the first, with counts of the last one alone."""
    raw = Raw(tmp_path, 6)
    raw.add_images(*range(12))
    convert(raw.config())
    before = hashes(raw.out)
    raw.write_json([entry(number) for number in range(4, 12)])
    for _ in range(2):  # the second time the file has been read before
        with pytest.raises(
            UserError, match=r"entries\.json lacks 4 of the 6 samples of .*, such as 0{15}[0-3]: it is another file"
        ):
            convert(raw.config())
    after = {name: found for name, found in hashes(raw.out).items() if not name.startswith(STATE)}
    assert after == {name: found for name, found in before.items() if not name.startswith(STATE)}
    raw.write_json([entry(number) for number in range(12)])  # the first file, grown
    assert convert(raw.config()).written == 6
    assert len(raw.ids()) == 12


def test_an_entry_that_an_earlier_release_took_does_not_make_it_another_file(tmp_path: Path) -> None:
    raw = Raw(tmp_path, 6)
    raw.add_images(*range(5))
    convert(raw.config())
    raw.write_json([*(entry(number, bbox="none") for number in range(4)), entry(4), entry(5)])
    raw.add_images(5)
    assert convert(raw.config()).written == 1
