"""The commands themselves: exit codes, the user's AWS settings, signals, moto's S3, status."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import psutil
import pytest
from bucket import Place, expected, image_id, objects, photo
from moto.server import ThreadedMotoServer
from s3_double import BUCKET, S3Double

from tests.helpers.terminal import on_terminal

COUNT = 60


def start(place: Place, *overrides: str) -> subprocess.Popen[str]:
    command = place.command("download.workers=8", *overrides)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_files(place: Place, process: subprocess.Popen[str], count: int) -> None:
    deadline = time.monotonic() + 300
    while len(list(place.images.glob("*.jpg"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def moto_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


def test_moto_s3_with_aws_settings_that_lead_nowhere(tmp_path: Path, moto_endpoint: str) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=moto_endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket=BUCKET)
    for key, data in objects(10).items():
        client.put_object(Bucket=BUCKET, Key=key, Body=data, ACL="public-read")
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws" / "config").write_text("[default]\nregion = nowhere-9\nendpoint_url = http://127.0.0.1:1\n")
    (home / ".aws" / "credentials").write_text("[default]\nnot even keys")
    environment = {
        **os.environ,
        "HOME": str(home),
        "AWS_PROFILE": "does-not-exist",
        "AWS_DEFAULT_REGION": "nowhere-9",
        "AWS_REGION": "nowhere-9",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "S3_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "wrong",
        "AWS_SECRET_ACCESS_KEY": "wrong",
        "AWS_CA_BUNDLE": "/does/not/exist",
    }
    place = Place(tmp_path / "place", moto_endpoint, 12)
    done = place.run(env=environment)
    assert done.returncode == 0, done.stderr
    assert place.files().keys() - {"missing.jsonl"} == {f"{image_id(number)}.jpg" for number in range(10)}
    assert [(line["status"], line["reason"]) for line in place.missing()] == [(404, "NoSuchKey")] * 2
    assert re.search(r"^fetched +10$", done.stdout, re.MULTILINE)
    assert re.search(r"^missing for good +2$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("download.worker=3", "unknown key download.worker; did you mean download.workers?"),
        ("download.workers=0", "download.workers: 0: expected 1 to 1024"),
        ("download.source=torrent", "download.source: torrent: expected one of images, tar"),
        ("download.layout=deep", "download.layout: deep: expected one of flat, sharded"),
        ("download.to=zip", "download.to: zip: expected one of images, mds"),
        ("download.endpoint=localhost:9000", "download.endpoint: localhost:9000: expected http(s)://HOST[:PORT]"),
        ("download.retries=-1", "download.retries: -1: expected 0 or more"),
        ("download.timeout=0", "download.timeout: 0.0: expected seconds"),
        ("download.spool_limit=much", "download.spool_limit: 'much' is not a size"),
        ("download.list=/does/not/exist", "download.list: /does/not/exist: no such file"),
        ("convert.json=/does/not/exist", "convert.json: /does/not/exist: no such file"),
        ("convert.images=null", "convert.images is null: the pictures are in the entries, and nothing is downloaded"),
    ],
)
def test_bad_settings_are_one_line(place: Place, override: str, line: str) -> None:
    done = place.run(override)
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not place.images.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_finishes_what_is_in_flight(place: Place, double: S3Double, number: signal.Signals, code: int) -> None:
    double.latency = 0.3
    with start(place) as process:
        wait_for_files(place, process, 8)
        process.send_signal(number)
        output, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    assert f"stopped: {number.name}" in output
    assert "run the same command again" in output
    asked = len(double.requests)
    assert asked < COUNT
    assert len(list(place.images.glob("*.jpg"))) == asked, "an image was asked for and thrown away"
    double.latency = 0
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert len(double.requests) == COUNT
    assert place.files() == expected(double, COUNT)


def test_a_second_download_on_the_same_folder_is_refused(place: Place, double: S3Double) -> None:
    last = sorted(double.objects)[-1]
    double.hold(last)  # the first download is at work until it is released, however slow the second one's start is
    with start(place) as process:
        wait_for_files(place, process, 1)
        second = place.run()
        assert second.returncode == 2
        assert "another download is at work" in second.stderr
        double.release(last)
        assert process.wait(timeout=300) == 0


def test_a_killed_worker_is_one_line_and_the_next_run_goes_on(place: Place, double: S3Double) -> None:
    double.latency = 0.3
    with start(place) as process:
        wait_for_files(place, process, 8)
        workers = [
            child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
        workers[0].kill()
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert [line for line in errors.splitlines() if "error:" in line] == [
        "error: a worker process was killed (out of memory?); run the same command again, it goes on"
    ]
    double.latency = 0
    assert place.run().returncode == 0
    assert place.files() == expected(double, COUNT)


def test_the_network_goes_and_comes_back(place: Place, double: S3Double) -> None:
    double.latency = 0.1
    with start(place, "download.retries=0") as process:
        wait_for_files(place, process, 8)
        double.go_away()
        there = len(list(place.images.glob("*.jpg")))
        time.sleep(2)
        assert process.poll() is None
        double.come_back()
        output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    assert there < COUNT
    assert place.files() == expected(double, COUNT)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs root to mount a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(tmp_path: Path, double: S3Double, small_disk: Path) -> None:
    place = Place(tmp_path / "place", double.endpoint, COUNT)
    double.objects = objects(COUNT, side=80)
    done = place.run(f"convert.images={small_disk}")
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "error:" in line] == [
        line for line in done.stderr.splitlines() if "the disk is full; free some space" in line
    ]
    files = {path.name: path.read_bytes() for path in small_disk.glob("*.jpg")}
    assert 0 < len(files) < COUNT
    assert all(data == double.objects[f"train/{name}"] for name, data in files.items()), "a half was left"
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = place.run(f"convert.images={small_disk}")
    assert again.returncode == 0, again.stderr
    assert len(list(small_disk.glob("*.jpg"))) == COUNT


def test_a_bar_on_a_terminal_and_none_in_a_log(place: Place, double: S3Double) -> None:
    returned, shown = on_terminal(place.command("download.workers=8"))
    assert returned == 0
    assert f"{COUNT}/{COUNT}" in shown
    assert "images/s" in shown
    assert place.run().stderr == ""


def test_status_follows_from_nothing_to_everything(place: Place, double: S3Double) -> None:
    def rows() -> dict[str, str]:
        done = place.run(script="status")
        assert done.returncode == 0, done.stderr
        lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
        return {name: value for name, _, value in (re.split(r"(  +)", line, maxsplit=1) for line in lines)}

    assert rows()["wanted"].startswith("unknown")
    assert not place.images.exists(), "status changes nothing"
    double.objects = objects(COUNT - 5)
    assert place.run().returncode == 0
    found = rows()
    assert found["wanted"] == "60"
    assert found["there"].startswith("55 (91.7%)")
    assert found["missing for good"].startswith("5,")
    assert found["latest download"] == "finished"
    assert (found["download"], found["conversion"]) == ("0 images", "55 images")
    assert place.run(script="to_mds").returncode == 0
    found = rows()
    assert found["converted"].startswith("55 in 1 generations")
    assert found["conversion"] == "0 images"
    for number in range(4):
        (place.images / f"{image_id(number)}.jpg").unlink()
    place.add(f"{image_id(COUNT - 1)}.jpg", photo(COUNT - 1))
    found = rows()
    assert (found["download"], found["conversion"]) == ("4 images", "1 images")
