"""A folder that has not changed is not listed again, and of what is written nothing is asked."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_folder import Raw, image_bytes, name

from theworld.config.schema import Config
from theworld.data.entries import scan as scanning
from theworld.data.entries.check_entry import id_key
from theworld.data.entries.folder_index import NOT_LOOKED_AT
from theworld.data.entries.scan import scan_images
from theworld.data.shards.convert import convert
from theworld.download.status import status


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    return Raw(tmp_path / "raw", 12)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each directory had last changed long before it was listed."""
    monkeypatch.setattr(scanning, "SETTLED", -(10**18))


@pytest.fixture
def asked(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What is asked of the operating system below the image folder: names of files, "list" for a listing."""
    counted: Counter[str] = Counter()
    stat, scandir = os.stat, os.scandir

    def counted_stat(path: str | os.PathLike[str], **settings: bool) -> os.stat_result:
        if Path(str(path)).parent.is_relative_to(raw.images):
            counted[Path(str(path)).name] += 1
        return stat(path, **settings)

    def counted_scandir(path: str | os.PathLike[str]) -> Any:
        counted["list"] += Path(str(path)).is_relative_to(raw.images)
        return scandir(path)

    monkeypatch.setattr(scanning.os, "stat", counted_stat)
    monkeypatch.setattr(scanning.os, "scandir", counted_scandir)
    return counted


def put(raw: Raw, number: int, folder: str = "a") -> Path:
    path = raw.images / folder / f"{name(number)}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image_bytes(number))
    return path


def status_of(raw: Raw) -> str:
    config = Config(convert=raw.config())
    return status(config).table()


@pytest.mark.usefixtures("settled")
def test_a_conversion_with_nothing_new_asks_for_directories_only(raw: Raw, asked: Counter[str]) -> None:
    for number in range(6):
        put(raw, number, "ab"[number % 2])
    assert convert(raw.config()).written == 6
    index = (raw.out / ".convert" / "image-folder").stat()
    asked.clear()
    report = convert(raw.config())
    assert (report.images, report.written, report.before) == (6, 0, 6)
    assert asked == Counter(a=1, b=1), "the times of two directories"
    asked.clear()
    table = status_of(raw)
    assert "6 (50.0%)" in table
    assert asked == Counter(a=1, b=1, spool=1), "the spool of a download straight to shards may be there"
    assert (raw.out / ".convert" / "image-folder").stat().st_mtime_ns == index.st_mtime_ns


@pytest.mark.usefixtures("settled")
def test_only_what_is_new_is_looked_at_in_a_directory_that_has_changed(raw: Raw, asked: Counter[str]) -> None:
    for number in range(4):
        put(raw, number)
    assert convert(raw.config()).written == 4
    new = put(raw, 4)
    asked.clear()
    assert convert(raw.config()).written == 1
    assert asked["list"] == 1
    assert asked[new.name] >= 1
    assert not any(asked[f"{name(number)}.jpg"] for number in range(4))


def test_a_directory_that_changed_a_moment_ago_is_listed_again(raw: Raw, asked: Counter[str]) -> None:
    """A file that came within the same tick of the clock would not show in the directory's times."""
    path = put(raw, 0)
    times = path.parent.stat()
    convert(raw.config())
    put(raw, 1)
    os.utime(path.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
    asked.clear()
    assert convert(raw.config()).written == 1
    assert asked["list"] == 2, "the folder itself and the one in it"
    assert not asked[path.name]


@pytest.mark.usefixtures("settled")
def test_a_directory_whose_time_was_put_back_is_listed_again(raw: Raw) -> None:
    """As rsync does and tar."""
    path = put(raw, 0)
    times = path.parent.stat()
    convert(raw.config())
    put(raw, 1)
    os.utime(path.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert convert(raw.config()).written == 1


@pytest.mark.usefixtures("settled")
def test_a_rejected_image_that_was_mended_in_place_is_taken(raw: Raw) -> None:
    put(raw, 0)
    bad = put(raw, 1)
    bad.write_bytes(bad.read_bytes()[:100])
    assert convert(raw.config()).written == 1
    assert convert(raw.config()).written == 0
    with bad.open("r+b") as file:  # the directory does not notice
        file.write(image_bytes(1))
    assert convert(raw.config()).written == 1


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("damage", [b"", b"[]\n", b"not an index", None])
def test_an_index_that_is_lost_or_damaged_is_made_anew(raw: Raw, damage: bytes | None, asked: Counter[str]) -> None:
    for number in range(4):
        put(raw, number)
    convert(raw.config())
    index = raw.out / ".convert" / "image-folder"
    content = index.read_bytes()
    if damage is None:
        index.unlink()
    else:
        index.write_bytes(damage or content[:-7])
    asked.clear()
    report = convert(raw.config())
    assert (report.images, report.written) == (4, 0)
    assert asked == Counter(list=2, a=1), "what is written is not looked at even then"
    assert "at least 0.0 MB" in status_of(raw)


@pytest.mark.usefixtures("settled")
def test_another_image_folder_has_an_index_of_its_own(raw: Raw, tmp_path: Path) -> None:
    for number in range(4):
        put(raw, number)
    convert(raw.config())
    raw.images.rename(tmp_path / "elsewhere")
    raw.images.mkdir()
    put(raw, 5, "")
    assert convert(raw.config()).images == 1
    elsewhere = scan_images(tmp_path / "elsewhere", index=raw.out / ".convert" / "image-folder", keep_index=False)
    assert len(elsewhere) == 4


CHANGES = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "move", "touch"]), st.integers(0, 9), st.sampled_from("abc")),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(rounds=st.lists(CHANGES, min_size=1, max_size=4), written=st.sets(st.integers(0, 9)))
def test_with_and_without_an_index_the_same_is_found(
    rounds: list[list[tuple[str, int, str]]], written: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("scan")
    images, index = root / "images", root / "index"
    images.mkdir()
    keys = np.sort(np.array([id_key(name(number)) for number in written], np.uint64))
    before = scanning.SETTLED
    scanning.SETTLED = -(10**18)
    try:
        for changes in rounds:
            for kind, number, folder in changes:
                change(images, kind, number, folder)
            whole = scan_images(images, keep_unclear=True)
            quick = scan_images(images, None, True, index, lambda found: ~np.isin(found, keys))
            assert quick.keys.tolist() == whole.keys.tolist()
            assert [quick.path(row) for row in range(len(quick))] == [whole.path(row) for row in range(len(whole))]
            fresh = ~np.isin(whole.keys, keys)
            assert quick.sizes[fresh].tolist() == whole.sizes[fresh].tolist()
            assert quick.mtimes[fresh].tolist() == whole.mtimes[fresh].tolist()
            assert set(quick.sizes[~fresh].tolist()) <= {NOT_LOOKED_AT, *range(1000)}
    finally:
        scanning.SETTLED = before


def change(images: Path, kind: str, number: int, folder: str) -> None:
    path = images / folder / f"{name(number)}.jpg"
    if kind == "add":
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(number + 1))
    elif kind == "touch" and path.exists():
        with path.open("ab") as file:
            file.write(b"more")
    elif kind == "remove":
        path.unlink(missing_ok=True)
    elif kind == "move" and path.exists():
        target = images / "c" / "inner" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
