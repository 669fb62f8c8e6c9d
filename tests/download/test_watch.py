"""Converting in a loop while the download runs, and training beside both."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket import ROOT, Place, image_id, objects, photo
from s3_double import S3Double

from tests.helpers.launcher import Process, composer, ended, start
from theworld.config.load import load_config
from theworld.download.watch import watch
from theworld.synthetic import generate

COUNT = 30


@pytest.fixture
def double() -> Iterator[S3Double]:
    with S3Double(objects(COUNT - 3)) as server:
        yield server


def converted(place: Place) -> int:
    manifest = place.folder / "mds" / "manifest.json"
    return json.loads(manifest.read_text())["samples"] if manifest.exists() else 0


def test_it_waits_for_a_first_image_and_ends_with_the_download(place: Place, double: S3Double) -> None:
    """Three images never come: only the end of the download tells that it is over."""
    double.latency = 0.2
    command = place.command("--watch", "0.2", script="to_mds")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watcher:
        download = place.run("download.workers=4")
        assert download.returncode == 0, download.stderr
        output, errors = watcher.communicate(timeout=300)
    assert watcher.returncode == 0, errors
    assert converted(place) == COUNT - 3
    assert len(re.findall(r"^written ", output, re.MULTILINE)) > 1, "all in one go: nothing was watched"


def test_it_ends_when_every_entry_has_its_image(place: Place) -> None:
    """No download of ours: the files come from elsewhere."""
    reports = watch(load_config(place.overrides()), 0.1)
    place.add(f"{image_id(0)}.jpg", photo(0))
    assert next(reports).written == 1
    for number in range(1, COUNT):
        place.add(f"{image_id(number)}.jpg", photo(number))
    assert sum(report.written for report in reports) == COUNT - 1


def test_a_finished_download_of_other_ids_does_not_end_it(place: Place, double: S3Double) -> None:
    double.objects = objects(COUNT)
    assert place.run().returncode == 0
    place.write_json(COUNT + 1)  # the JSON has grown since
    reports = watch(load_config(place.overrides()), 0.1)
    assert next(reports).written == COUNT
    place.add(f"{image_id(COUNT)}.jpg", photo(COUNT))
    assert next(reports).written + sum(report.written for report in reports) == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--watch"], "argument --watch: expected one argument"),
        (["--watch", "soon"], "expected seconds between two conversions"),
        (["--watch=0"], "expected seconds between two conversions"),
        (["--watch", "-5"], "expected seconds between two conversions"),
    ],
)
def test_a_pause_that_is_none_is_one_line(place: Place, arguments: list[str], line: str) -> None:
    done = place.run(*arguments, script="to_mds")
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1


SAMPLES = 120
AT_FIRST = 60
PART = 20
BATCH = 4


@pytest.mark.slow
@pytest.mark.dist
def test_training_while_downloading_sees_every_sample_exactly_once(tmp_path: Path) -> None:
    """Download, conversion in a loop and training on two ranks run at the same time.

    The bucket holds half of the images back until training is under way, and one for good.
    """
    raw = tmp_path / "raw"
    generate(raw, samples=SAMPLES, seed=11, size=256)
    names = [entry["filename"] for entry in json.loads((raw / "openspatial.json").read_text())]
    photos = {f"train/{name}.jpg": (raw / "images" / f"{name}.jpg").read_bytes() for name in names}
    gone = f"train/{names[-1]}.jpg"
    del photos[gone]
    with S3Double(photos) as double:
        for name in names[AT_FIRST:]:
            double.hold(f"train/{name}.jpg")
        place = Place(tmp_path / "place", double.endpoint)
        (raw / "openspatial.json").replace(place.json)
        run = tmp_path / "run"
        train = composer(
            2,
            *place.overrides(),
            f"save_folder={run}",
            f"train_loader.dataset.local={tmp_path / 'cache'}",
            f"global_train_batch_size={BATCH}",
            "device_train_microbatch_size=1",
            "model.world_image_size=256",
            "save_interval=1ep",
        )
        quiet = {"stdout": subprocess.DEVNULL, "cwd": ROOT}
        with (
            subprocess.Popen(place.command("download.workers=4"), **quiet) as download,
            subprocess.Popen(place.command("--watch", "0.5", script="to_mds"), **quiet) as watcher,
        ):
            wait_until(lambda: converted(place) >= AT_FIRST, download, watcher)
            trainer = start(train, tmp_path / "log")
            wait_until(lambda: trained(run) > 0, download, watcher, trainer)
            for first in range(AT_FIRST, SAMPLES, PART):
                for name in names[first : first + PART]:
                    double.release(f"train/{name}.jpg")
                arrived = min(first + PART, SAMPLES - 1)
                wait_until(lambda count=arrived: converted(place) >= count, trainer)
            assert download.wait(timeout=300) == 0
            assert watcher.wait(timeout=300) == 0
            assert ended(trainer) == 0
    audit = subprocess.run(
        [sys.executable, "recipes/audit.py", str(run), str(place.folder / "mds")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert audit.returncode == 0, audit.stdout
    assert re.search(rf"seen once +{SAMPLES - 1}\n", audit.stdout), audit.stdout
    (launch,) = map(json.loads, (run / "launches.jsonl").read_text().splitlines())
    assert launch["samples"] == AT_FIRST, "the rest came while this one start trained, or waited for it"


def trained(run: Path) -> int:
    """Batches in the ledger of rank 0."""
    ledger = run / "ledger" / "rank0.jsonl"
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


def wait_until(condition, *processes: Process) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), "one of them ended early"
        time.sleep(0.1)
