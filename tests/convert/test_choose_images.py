"""Where one id has several files, or a folder looks like depth maps beside photos."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_folder import Raw, image_bytes, name

from theworld.config.schema import Config, ConvertConfig
from theworld.data.entries.folder_kinds import LOOKED_AT, MOST_FOLDERS, odd_folders
from theworld.data.entries.scan import scan_images
from theworld.data.shards.convert import convert
from theworld.download.download_plan import check_folders
from theworld.download.download_settings import check_settings
from theworld.errors import UserError


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    return Raw(tmp_path / "raw", 6)


def put(raw: Raw, path: str, picture: int) -> bytes:
    """A file of the image folder with the picture of some number; in place of {} the id of the same number."""
    target = raw.images / path.format(name(picture))
    target.parent.mkdir(parents=True, exist_ok=True)
    data = image_bytes(picture, "PNG" if target.suffix == ".png" else "JPEG", (40 + picture % 7, 30 + picture % 5))
    target.write_bytes(data)
    return data


def taken(raw: Raw, named: list[str] | None = None) -> list[str]:
    scan = scan_images(raw.images, named)
    return sorted(scan.path(row) for row in range(len(scan)))


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("z", "of another kind than the photos beside them"),
        ("depth/a", "like depth maps or masks, by their folder's name or by their one channel"),
    ],
)
def test_a_photo_that_has_not_arrived_is_not_replaced_by_its_depth_map(
    raw: Raw, caplog: pytest.LogCaptureFixture, folder: str, why: str
) -> None:
    photo = put(raw, "train/{}.jpg", 0)
    for number in range(4):
        put(raw, folder + "/{}.png", number)
    with caplog.at_level(logging.WARNING):
        report = convert(raw.config())
    assert (report.images, report.written, report.left_out["image not there yet"]) == (5, 1, 5)
    assert f"4 files are {why}, such as {folder}/" in caplog.text
    assert "convert.image_folders" in caplog.text
    assert "images not taken" in report.table()
    late = put(raw, "train/{}.jpg", 1)
    assert convert(raw.config()).written == 1
    shards = b"".join(path.read_bytes() for path in sorted(raw.out.glob("gen-*/*.mds")))
    assert photo in shards
    assert late in shards


def test_masks_in_the_photos_own_folder_are_seen_by_an_id_that_has_both(raw: Raw) -> None:
    put(raw, "{}.jpg", 0)
    put(raw, "{}.png", 1)
    assert taken(raw) == [f"{name(0)}.jpg", f"{name(1)}.png"], "photos of two kinds are no question"
    put(raw, "{}.png", 0)
    assert taken(raw) == [f"{name(0)}.jpg"]


def test_an_id_with_files_that_differ_in_several_folders_is_not_taken_until_told(
    raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    put(raw, "a/{}.jpg", 0)
    put(raw, "a/{}.jpg", 1)
    (raw.images / "b").mkdir()
    (raw.images / "b" / f"{name(1)}.jpg").write_bytes(image_bytes(9, size=(20, 20)))
    with caplog.at_level(logging.WARNING):
        assert convert(raw.config()).written == 1
    assert f"2 files are of an id with several files that differ, such as a/{name(1)}.jpg and b/" in caplog.text
    assert taken(raw, ["b", "*"]) == [f"a/{name(0)}.jpg", f"b/{name(1)}.jpg"]
    assert taken(raw, ["a", "b"]) == [f"a/{name(0)}.jpg", f"a/{name(1)}.jpg"]
    assert convert(raw.config(image_folders=["b"])).written == 0, "its picture is smaller than its annotation"
    assert convert(raw.config(image_folders=["a"])).written == 1


def test_copies_are_no_question_and_the_listing_s_order_does_not_matter(raw: Raw) -> None:
    for path in ("b/{}.jpg", "a/{}.jpg", "a/{}.JPG"):
        put(raw, path, 3)
    assert taken(raw) == [f"a/{name(3)}.JPG"]


def one_channel(kind: str, number: int = 0) -> tuple[str, bytes]:
    """Suffix and bytes of a file with one channel, of the size that entry ``number`` was annotated in."""
    mode = {"depths": "I;16", "classes": "P", "bits": "1", "grey": "L", "grey.jpg": "L"}[kind]
    suffix = ".jpg" if kind.endswith(".jpg") else ".png"
    stream = io.BytesIO()
    image = Image.new(mode, (40 + number % 7, 30 + number % 5), 1)
    image.save(stream, "JPEG" if suffix == ".jpg" else "PNG")
    return suffix, stream.getvalue()


def put_channel(raw: Raw, kind: str, numbers: range, folder: str = "") -> None:
    (raw.images / folder).mkdir(exist_ok=True)
    for number in numbers:
        suffix, data = one_channel(kind, number)
        (raw.images / folder / f"{name(number)}{suffix}").write_bytes(data)


@pytest.mark.parametrize(
    ("kind", "count"), [("depths", 1), ("classes", 1), ("bits", 1), ("grey", 16), ("grey.jpg", 16)]
)
def test_a_folder_of_depth_maps_or_masks_alone_is_refused_until_told(tmp_path: Path, kind: str, count: int) -> None:
    raw = Raw(tmp_path / "raw", count)
    put_channel(raw, kind, range(count))
    with pytest.raises(UserError, match=rf'no file of it is taken: {count} files like depth maps .*"\*" is all'):
        convert(raw.config())
    assert convert(raw.config(image_folders=["*"])).written == count


def test_the_image_folder_s_own_name_tells_as_well(raw: Raw) -> None:
    raw.add_images(0)
    depths = raw.images.rename(raw.folder / "Depth_v2")
    with pytest.raises(UserError, match="like depth maps or masks"):
        convert(raw.config(images=str(depths)))
    assert convert(raw.config(images=str(depths), image_folders=["."])).written == 1


def test_grey_photos_are_photos(tmp_path: Path) -> None:
    few = Raw(tmp_path / "few", 15)
    put_channel(few, "grey.jpg", range(15))
    assert convert(few.config()).written == 15, "too few to tell"
    many = Raw(tmp_path / "many", 16)
    put_channel(many, "grey.jpg", range(15))
    many.add_images(15)
    assert convert(many.config()).written == 16, "one has colours"


def test_masks_among_the_photos_under_other_ids_are_left_out(raw: Raw) -> None:
    raw.add_images(0, 1)
    put_channel(raw, "classes", range(2, 6))
    report = convert(raw.config())
    assert (report.written, [one.count for one in report.passed_over]) == (2, [4])


def test_many_folders_are_looked_at_by_the_first_part_of_their_path() -> None:
    names = [f"{first}/{number:04x}" for first in ("b", "a") for number in range(MOST_FOLDERS)]
    folders = np.repeat(np.arange(len(names)), 2)
    opened: list[int] = []

    def head(row: int) -> bytes:
        opened.append(row)
        return one_channel("depths")[1] if names[folders[row]].startswith("a") else image_bytes(row)

    odd = odd_folders(folders, np.zeros(len(folders), np.int64), names, "images", head)
    assert odd.tolist() == [names[folder].startswith("a") for folder in folders]
    assert len(opened) == LOOKED_AT + 1, "of photos one is enough"


def test_named_folders_are_all_that_is_taken(raw: Raw) -> None:
    put(raw, "train/{}.jpg", 0)
    put(raw, "more/deep/{}.png", 1)
    put(raw, "{}.jpg", 2)
    report = convert(raw.config(image_folders=["more/*", "."]))
    assert report.written == 2
    assert [(one.reason, one.count) for one in report.passed_over] == [("outside convert.image_folders", 1)]


@pytest.mark.parametrize("value", [[], [""], ["/abs"], ["a/../.."]])
def test_impossible_folders_name_the_key(raw: Raw, value: list[str]) -> None:
    raw.add_images(0)
    with pytest.raises(UserError, match=r"convert\.image_folders"):
        convert(raw.config(image_folders=value))


@pytest.mark.parametrize(("layout", "good", "bad"), [("flat", ["train", "."], ["train"]), ("sharded", ["??"], ["."])])
def test_a_download_goes_where_it_is_found_again(raw: Raw, layout: str, good: list[str], bad: list[str]) -> None:
    def check(named: list[str]) -> None:
        convert_section = ConvertConfig(json=str(raw.json), images=str(raw.images), image_folders=named)
        config = Config(run_name="test", global_train_batch_size=1, convert=convert_section)
        config.download.layout = layout
        check_folders(check_settings(config))

    check(good)
    with pytest.raises(UserError, match="leaves out where the download goes"):
        check(bad)
