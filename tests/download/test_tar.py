"""The public tars: when they are used, what is kept of them, and every way in which they can break."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from bucket import Place, expected, image_id, objects, photo
from s3_double import Fault, S3Double

from theworld.download.download_report import Report
from theworld.download.start import run

GROUP = 12
COUNT = 10 * 16
"""Ten wanted images of each first digit, of twelve that each group has."""


def tar_key(digit: int) -> str:
    return f"tar/train_{digit:x}.tar.gz"


def make_tar(digit: int, numbers: list[int], spoil: dict[int, bytes] | None = None) -> bytes:
    """A tar as the public ones: a folder with the images of one first digit, compressed."""
    stream = io.BytesIO()
    with gzip.open(stream, "wb", compresslevel=1) as plain, tarfile.open(fileobj=plain, mode="w") as tar:
        folder = tarfile.TarInfo(f"train_{digit:x}")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for number in numbers:
            data = (spoil or {}).get(number, photo(number))
            member = tarfile.TarInfo(f"train_{digit:x}/{image_id(number)}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def of_group(digit: int, count: int) -> list[int]:
    return [digit + 16 * step for step in range(count)]


@pytest.fixture
def double() -> Iterator[S3Double]:
    with S3Double({}) as server:
        server.objects = {
            **objects(GROUP * 16),
            **{tar_key(digit): make_tar(digit, of_group(digit, GROUP)) for digit in range(2)},
        }
        yield server


def run_with_tars(place: Place, **changes: Any) -> Report:
    return run(place.settings(**{"source": "tar", "group": GROUP} | changes))


def singles(double: S3Double) -> list[str]:
    return [key for _, key in double.requests if key.startswith("train/")]


def test_tars_where_more_than_half_is_wanted_and_only_wanted_members(place: Place, double: S3Double) -> None:
    place.list.write_text("".join(f"{image_id(n)}\n" for n in [*of_group(0, 7), *of_group(1, 6)]))
    report = run_with_tars(place, list=place.list)
    assert report.complete
    assert (report.saved, report.from_tars) == (13, 7)
    assert double.asked(tar_key(0)) == 1
    assert double.asked(tar_key(1)) == 0, "six of twelve are not more than half"
    assert sorted(singles(double)) == sorted(f"train/{image_id(n)}.jpg" for n in of_group(1, 6))
    assert place.files() == {f"{image_id(n)}.jpg": photo(n) for n in [*of_group(0, 7), *of_group(1, 6)]}


def test_what_the_tars_lack_comes_by_single_requests(place: Place, double: S3Double) -> None:
    double.objects = {**double.objects, tar_key(0): make_tar(0, of_group(0, 5), {16: b"no image"})}
    report = run_with_tars(place)
    assert report.complete
    assert place.files() == expected(double, COUNT)
    assert report.from_tars == 4 + 10
    assert len(singles(double)) == COUNT - 14
    assert double.asked(tar_key(2)) == 1, "a tar that is not there is no obstacle"


@pytest.mark.parametrize("kind", ["cut", "drop", "status"])
def test_a_broken_connection_goes_on_at_its_byte(place: Place, double: S3Double, kind: str) -> None:
    double.faults[tar_key(0)] = [Fault("cut"), Fault(kind), Fault(kind)]
    report = run_with_tars(place)
    assert report.complete
    assert report.from_tars == 20
    assert double.asked(tar_key(0)) == 4
    assert "range: bytes=" in double.headers[tar_key(0)]
    assert "if-match:" in double.headers[tar_key(0)]
    assert place.files() == expected(double, COUNT)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[: len(data) // 2] + b"\0" * 200 + data[len(data) // 2 + 200 :],
        lambda data: b"<html>" + data,
        lambda data: b"",
    ],
    ids=["cut", "garbled", "page", "empty"],
)
def test_a_damaged_tar_gives_way_to_single_requests(place: Place, double: S3Double, spoil: Any) -> None:
    double.objects = {**double.objects, tar_key(0): spoil(double.objects[tar_key(0)])}
    report = run_with_tars(place)
    assert report.complete
    assert place.files() == expected(double, COUNT)


def test_after_a_break_only_what_is_still_wanted_counts(place: Place, double: S3Double) -> None:
    """Nine of ten of group 0 are there: the rest goes by single requests. Three of group 1 are: its tar comes again."""
    for number in [*of_group(0, 9), *of_group(1, 3)]:
        place.add(f"{image_id(number)}.jpg", photo(number))
    before = {path: path.stat().st_mtime_ns for path in place.images.glob("*.jpg")}
    report = run_with_tars(place)
    assert report.complete
    assert report.from_tars == 7
    assert double.asked(tar_key(0)) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before, "written again"
    assert place.files() == expected(double, COUNT)


def test_tars_into_sub_folders(place: Place, double: S3Double) -> None:
    assert run_with_tars(place, layout="sharded").from_tars == 20
    assert place.files() == {f"{name[:2]}/{name}": data for name, data in expected(double, COUNT).items()}


def test_reading_ends_when_the_last_wanted_member_is_there(place: Place, double: S3Double) -> None:
    """A group whose wanted members come first: the connection is closed before the damaged rest."""
    double.objects = {**double.objects, tar_key(0): make_tar(0, of_group(0, 400))[:-1000]}
    assert run_with_tars(place).from_tars == 20
