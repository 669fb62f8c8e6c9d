"""Straight to shards: what was fetched is in the data set, and no small files stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bucket import Place, image_id, objects, photo
from s3_double import S3Double

from theworld.data.shards.dataset import DataSet, generation_ids
from theworld.data.shards.verify import verify
from theworld.download.start import run
from theworld.errors import UserError

COUNT = 40


def written(place: Place) -> list[str]:
    data_set = DataSet(place.folder / "mds")
    return [name for folder in data_set.generations() for name in generation_ids(folder)]


def small_files(place: Place) -> set[str]:
    """Images anywhere below the image folder, the downloader's own folder included."""
    return {path.name for path in place.images.rglob("*.jpg")}


def test_all_that_exists_ends_up_in_shards_and_nowhere_else(place: Place, double: S3Double) -> None:
    double.objects = objects(COUNT - 2)
    report = run(place.settings(to="mds"))
    assert report.complete
    assert (report.saved, report.converted, report.missing) == (COUNT - 2, COUNT - 2, 2)
    assert sorted(written(place)) == sorted(image_id(number) for number in range(COUNT - 2))
    assert not verify(place.folder / "mds").problems
    assert not small_files(place)
    again = run(place.settings(to="mds"))
    assert again.complete
    assert (again.before, again.saved) == (COUNT - 2, 0)
    assert len(double.requests) == COUNT


def test_a_small_spool_gives_several_generations(place: Place, double: S3Double) -> None:
    double.objects = objects(COUNT, side=120)
    size = sum(map(len, double.objects.values()))
    # Images on their way count with their usual 308 kB, so that few are asked for at a time.
    report = run(place.settings(to="mds", spool_limit=size // 3, workers=2))
    assert report.complete
    assert len(DataSet(place.folder / "mds").generations()) >= 3
    assert sorted(written(place)) == sorted(image_id(number) for number in range(COUNT))
    assert not small_files(place)


def test_what_a_killed_run_left_in_the_spool_is_converted_first(place: Place, double: S3Double) -> None:
    for number in range(5):
        place.add(f".download/spool/{image_id(number)}.jpg", photo(number))
    report = run(place.settings(to="mds"))
    assert (report.before, report.saved, report.converted) == (5, COUNT - 5, COUNT)
    assert double.asked(f"train/{image_id(0)}.jpg") == 0
    assert sorted(written(place)) == sorted(image_id(number) for number in range(COUNT))


def test_images_that_the_user_keeps_are_left_alone(place: Place, double: S3Double) -> None:
    kept = place.add(f"{image_id(3)}.jpg", photo(3))
    report = run(place.settings(to="mds"))
    assert (report.before, report.saved) == (1, COUNT - 1)
    assert kept.read_bytes() == photo(3)


def test_held_out_samples_count_as_written(place: Place) -> None:
    settings = place.settings(to="mds")
    settings = replace(settings, convert=replace(settings.convert, holdout=0.4))
    assert run(settings).complete
    assert run(settings).saved == 0
    assert 0 < len(written(place)) < COUNT


def test_images_without_an_entry_are_an_error_and_not_an_endless_loop(place: Place) -> None:
    place.write_json(3)
    place.list.write_text("".join(f"{image_id(number)}\n" for number in range(5)))
    with pytest.raises(UserError, match=r"2 images such as .* did not go into shards"):
        run(place.settings(to="mds", list=place.list))


def test_tars_do_not_go_with_it(place: Place) -> None:
    done = place.run("download.to=mds", "download.source=tar")
    assert done.returncode == 2
    assert "download.source: tar cannot wait" in done.stderr
