"""Whole runs through the library: what is asked for, what is there at the end, what is remembered."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest
from bucket import Place, expected, image_id, make_fetcher, objects, photo
from PIL import Image
from s3_double import Fault, S3Double

from theworld.data.shards.convert import convert
from theworld.download.fetch import FAILED, Fetcher, Outcome, Task
from theworld.download.start import run
from theworld.download.workers import fetch_whatever
from theworld.errors import UserError

COUNT = 40


def test_gets_what_the_json_names_and_then_nothing_more(place: Place, double: S3Double) -> None:
    report = run(place.settings())
    assert report.complete
    assert (report.wanted, report.before, report.saved, report.missing) == (COUNT, 0, COUNT, 0)
    assert place.files() == expected(double, COUNT)
    assert len(double.requests) == COUNT
    again = run(place.settings())
    assert again.complete
    assert (again.before, again.saved) == (COUNT, 0)
    assert len(double.requests) == COUNT, "asked again for what was there"


def test_takes_up_ids_that_the_json_names_anew(place: Place, double: S3Double) -> None:
    place.write_json(10)
    assert run(place.settings()).saved == 10
    place.write_json(30)
    report = run(place.settings())
    assert (report.wanted, report.before, report.saved) == (30, 10, 20)
    assert place.files() == expected(double, 30)


def test_a_cut_json_gives_the_ids_before_the_cut(place: Place) -> None:
    text = place.json.read_text()
    place.json.write_text(text[: len(text) // 2])
    report = run(place.settings())
    assert report.complete
    assert 0 < report.saved < COUNT
    assert report.broken_json
    assert "byte" in report.broken_json
    done = place.run()
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1


def test_a_list_in_the_official_format(place: Place, double: S3Double) -> None:
    double.objects = {**objects(4), "validation/00aa.jpg": photo(90)}
    place.list.write_text(
        f"# the first four\ntrain/{image_id(0)}\n{image_id(1)}\n\n  train/{image_id(2)}.jpg  # with suffix\n"
        f"train/{image_id(3)}\ntrain/{image_id(0)}\nvalidation/00aa\n"
    )
    report = run(place.settings(list=place.list))
    assert (report.wanted, report.saved) == (5, 5)
    assert place.files() == {**expected(double, 4), "00aa.jpg": photo(90)}


@pytest.mark.parametrize("line", ["train/../../etc/passwd", "train/", "a b", "train/" + "0" * 300, "<html>"])
def test_a_line_that_is_no_id_is_named(place: Place, double: S3Double, line: str) -> None:
    place.list.write_text(f"train/{image_id(0)}\n{line}\n")
    with pytest.raises(UserError, match=r"list\.txt, line 2: .* is not an id"):
        run(place.settings(list=place.list))
    assert not double.requests


def test_an_empty_list_is_an_error(place: Place) -> None:
    place.list.write_text("# nothing\n")
    with pytest.raises(UserError, match="names no image"):
        run(place.settings(list=place.list))


def test_sharded_folders_are_read_by_the_converter(place: Place, double: S3Double) -> None:
    assert run(place.settings(layout="sharded")).complete
    assert place.files() == {f"{name[:2]}/{name}": data for name, data in expected(double, COUNT).items()}
    assert convert(place.settings().convert).written == COUNT
    assert run(place.settings(layout="flat")).saved == 0, "the other layout's files count as well"


def test_keeps_whole_files_of_other_programs_and_replaces_broken_ones(place: Place, double: S3Double) -> None:
    broken = {
        f"{image_id(0)}.jpg": photo(0)[:-30],
        f"{image_id(1)}.jpg": b"",
        f"{image_id(2)}.jpg": b"<html>404</html>",
        f"ab/{image_id(3)}.jpg": photo(3)[:100],
        f"{image_id(4)}.png": photo(4, "PNG")[:-20],
    }
    whole = {
        f"{image_id(5)}.jpg": photo(500),
        f"{image_id(6)}.png": photo(6, "PNG"),
        f"cd/{image_id(7)}.jpeg": photo(7),
        f"{image_id(8)}.jpg": photo(8) + b"\0\0 bytes after the end",
    }
    for name, content in {**broken, **whole}.items():
        place.add(name, content)
    report = run(place.settings())
    assert (report.before, report.broken, report.saved) == (len(whole), len(broken), COUNT - len(whole))
    files = place.files()
    assert {name: files[name] for name in whole} == whole
    assert files[f"ab/{image_id(3)}.jpg"] == photo(3), "replaced where it was, or the converter would find two"
    assert f"{image_id(3)}.jpg" not in files
    assert files[f"{image_id(4)}.jpg"] == photo(4)
    assert all(files[f"{image_id(number)}.jpg"] == photo(number) for number in range(3))
    asked = {key for _, key in double.requests}
    assert not asked & {f"train/{image_id(number)}.jpg" for number in range(5, 9)}


def test_a_file_that_lost_bytes_after_it_was_fetched_is_fetched_again(place: Place) -> None:
    run(place.settings())
    path = place.images / f"{image_id(3)}.jpg"
    path.write_bytes(photo(3)[:50])
    report = run(place.settings())
    assert (report.broken, report.saved) == (1, 1)
    assert path.read_bytes() == photo(3)


def test_what_is_missing_for_good_is_listed_and_not_asked_again(place: Place, double: S3Double) -> None:
    gone = [f"train/{image_id(number)}.jpg" for number in (3, 17)]
    taken = {key: double.objects[key] for key in gone}
    double.objects = {key: data for key, data in double.objects.items() if key not in gone}
    double.always[f"train/{image_id(20)}.jpg"] = Fault("status", 403)
    report = run(place.settings())
    assert report.complete
    assert (report.saved, report.missing, report.left) == (COUNT - 3, 3, 0)
    listed = {line["id"]: line for line in place.missing()}
    assert listed.keys() == {image_id(3), image_id(17), image_id(20)}
    assert listed[image_id(3)] == {"id": image_id(3), "key": gone[0], "status": 404, "reason": "NoSuchKey"}
    assert listed[image_id(20)]["status"] == 403

    again = run(place.settings())
    assert again.complete
    assert again.missing == 3
    assert [double.asked(key) for key in gone] == [1, 1]

    double.objects = {**double.objects, gone[0]: taken[gone[0]]}
    told = run(place.settings(retry_missing=True))
    assert (told.saved, told.missing) == (1, 2)
    assert sorted(line["id"] for line in place.missing()) == sorted([image_id(17), image_id(20)])
    place.add(f"{image_id(17)}.jpg", photo(17))
    run(place.settings())
    assert [line["id"] for line in place.missing()] == [image_id(20)], "it has come by other means"


def test_a_torn_line_of_missing_costs_one_request(place: Place, double: S3Double) -> None:
    double.objects = objects(COUNT - 2)
    run(place.settings())
    path = place.images / "missing.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    assert run(place.settings()).missing == 2
    assert len(place.missing()) == 2


def test_a_wrong_bucket_is_an_error_and_not_forty_missing_images(place: Place, double: S3Double) -> None:
    double.objects = {}
    with pytest.raises(UserError, match=r"has none of the 40 images asked for .*404 NoSuchKey.*download\.endpoint"):
        run(place.settings())
    assert not place.missing()


@pytest.mark.parametrize("fault", [Fault("status", 403), Fault("status", 404)], ids=["forbidden", "not found"])
def test_a_mass_of_refusals_is_an_outage_and_nothing_is_written_down(
    place: Place, double: S3Double, fault: Fault
) -> None:
    good = f"train/{image_id(0)}.jpg"
    for key in double.objects:
        if key != good:
            double.always[key] = fault
    report = run(place.settings())
    assert not report.complete
    assert (report.saved, report.missing, report.left) == (1, 0, COUNT - 1)
    assert f"39 of 40 images were refused (39 times {fault.status}" in report.stopped
    assert not place.missing()
    assert run(place.settings(most_missing=1.0)).complete
    assert len(place.missing()) == COUNT - 1


def test_a_header_that_cannot_be_read_is_an_outcome(place: Place, double: S3Double) -> None:
    key = f"train/{image_id(9)}.jpg"
    double.always[key] = Fault("length")
    report = run(place.settings(retries=0))
    assert (report.saved, report.left) == (COUNT - 1, 1)


def test_whatever_a_fetch_raises_is_an_outcome(double: S3Double, tmp_path: Path) -> None:
    class Broken(Fetcher):
        def fetch(self, task: Task) -> Outcome:
            raise ZeroDivisionError("a fault of the code")

    made = make_fetcher(double.endpoint, tmp_path)
    outcome = fetch_whatever(Broken(made.settings, made.server), Task(3, "train/x", "x.jpg"))
    assert (outcome.number, outcome.kind, outcome.reason) == (3, FAILED, "ZeroDivisionError: a fault of the code")


@pytest.mark.slow
def test_a_download_in_which_nothing_comes_any_more_ends(place: Place, double: S3Double) -> None:
    key = f"train/{image_id(9)}.jpg"
    double.hold(key)
    report = run(place.settings(timeout=60.0, stalled=15.0))
    double.release(key)
    assert "no image has come or failed" in report.stopped
    assert report.saved == COUNT - 1


def test_nobody_there_is_an_error_that_names_the_address(place: Place, double: S3Double) -> None:
    double.go_away()
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1.*no answer in .*download\.endpoint"):
        run(place.settings(patience_at_first=0.5))


def test_silence_of_a_server_that_answered_before_means_run_again(place: Place, double: S3Double) -> None:
    place.write_json(5)
    run(place.settings())
    place.write_json(COUNT)
    double.go_away()
    report = run(place.settings(patience=0.5))
    assert not report.complete
    assert "no answer" in report.stopped
    double.come_back()
    assert run(place.settings()).saved == COUNT - 5


def test_what_failed_in_one_round_is_tried_in_another(place: Place, double: S3Double) -> None:
    key = f"train/{image_id(9)}.jpg"
    double.faults[key] = [Fault("status", 500)] * 2
    report = run(place.settings(retries=1))
    assert report.complete
    assert report.saved == COUNT
    assert double.asked(key) == 3


def test_what_fails_always_is_left_to_the_next_run(place: Place, double: S3Double) -> None:
    key = f"train/{image_id(9)}.jpg"
    double.always[key] = Fault("status", 500)
    report = run(place.settings(retries=0))
    assert not report.complete
    assert (report.saved, report.left) == (COUNT - 1, 1)
    assert "500" in report.table()
    del double.always[key]
    assert run(place.settings()).saved == 1
    assert place.files() == expected(double, COUNT)


def test_a_service_in_trouble_ends_the_run_early(place: Place, double: S3Double) -> None:
    double.objects = objects(600)
    place.write_json(600)
    run(replace(place.settings(), list=None))
    for path in place.images.glob("*.jpg"):
        path.unlink()
    double.always["*"] = Fault("status", 503)
    before = len(double.requests)
    report = run(place.settings(retries=0))
    assert "failed one after the other: 503" in report.stopped
    assert len(double.requests) - before < 300, "burnt through all of them"


def test_converter_takes_what_was_fetched(place: Place) -> None:
    run(place.settings())
    report = convert(place.settings().convert)
    assert report.written == COUNT
    with Image.open(io.BytesIO(place.files()[f"{image_id(1)}.jpg"])) as image:
        assert image.size == (41, 40)


def test_entries_that_cannot_name_a_file_are_counted(place: Place) -> None:
    place.json.write_text('[{"filename": "../x"}, {"filename": "' + image_id(1) + '"}, {"other": 1}, 5]')
    report = run(place.settings())
    assert (report.wanted, report.saved, report.unusable) == (1, 1, 3)
    assert not os.path.exists(place.folder / "x.jpg")
