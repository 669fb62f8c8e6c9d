"""One image against everything that a server and a network can do to it."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest
from bucket import make_fetcher, objects, photo
from s3_double import Fault, S3Double

from theworld.download.fetch import FAILED, MISSING, NO_DISK, SAVED, SILENT, STOPPED, Task

COUNT = 4
KEY = next(iter(objects(1)))
TASK = Task(7, KEY.removesuffix(".jpg"), KEY.partition("/")[2])


def left_over(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", 503),
        Fault("status", 500),
        Fault("status", 429, "Retry-After: 0\r\n"),
        Fault("cut"),
        Fault("short"),
        Fault("garbled"),
        Fault("drop"),
        Fault("page"),
        Fault("blocked"),
        Fault("status", 407),
        Fault("status", 301),
        Fault("stall"),
    ],
    ids=lambda fault: f"{fault.kind}{fault.status if fault.kind == 'status' else ''}",
)
def test_what_may_pass_is_tried_again(double: S3Double, tmp_path: Path, fault: Fault) -> None:
    double.faults[KEY] = [fault]
    outcome = make_fetcher(double.endpoint, tmp_path, timeout=0.5).fetch(TASK)
    path = tmp_path / TASK.path
    assert (outcome.kind, outcome.number, outcome.size) == (SAVED, 7, len(photo(0)))
    assert path.read_bytes() == photo(0)
    assert outcome.mtime_ns == path.stat().st_mtime_ns
    assert double.asked(KEY) == 2
    assert left_over(tmp_path) == [TASK.path]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_final_answer_is_asked_for_once(double: S3Double, tmp_path: Path, status: int) -> None:
    double.always[KEY] = Fault("status", status)
    outcome = make_fetcher(double.endpoint, tmp_path).fetch(TASK)
    assert (outcome.kind, outcome.status, outcome.name) == (MISSING, status, TASK.name)
    assert double.asked(KEY) == 1
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", 400),
        Fault("status", 302, "Location: http://169.254.169.254/latest/meta-data\r\n"),
        Fault("status", 302, "Location: file:///etc/passwd\r\n"),
        Fault("status", 302, "Location: ?again\r\n"),
    ],
    ids=["400", "elsewhere", "file", "in a circle"],
)
def test_what_cannot_be_had_from_here_is_not_missing(double: S3Double, tmp_path: Path, fault: Fault) -> None:
    double.always[KEY] = fault
    outcome = make_fetcher(double.endpoint, tmp_path, timeout=2.0).fetch(TASK)
    assert outcome.kind == FAILED
    assert ("redirect" in outcome.reason) == (fault.status == 302)
    assert double.asked(KEY) == (4 if "again" in fault.headers else 1)
    assert {key for _, key in double.requests} == {KEY}


def test_a_redirect_within_the_endpoint_is_followed(double: S3Double, tmp_path: Path) -> None:
    double.objects = {**double.objects, "train/moved.jpg": photo(0)}
    double.always[KEY] = Fault("status", 302, "Location: moved.jpg\r\n")
    assert make_fetcher(double.endpoint, tmp_path).fetch(TASK).kind == SAVED


@pytest.mark.parametrize("kind", ["status", "cut", "short", "garbled", "page"])
def test_what_does_not_pass_is_given_up_and_leaves_nothing(double: S3Double, tmp_path: Path, kind: str) -> None:
    double.faults[KEY] = [Fault(kind)] * 3
    if kind == "garbled":  # another byte each time, as noise on a line
        double.etags[KEY] = "0" * 32
        double.faults[KEY] = [Fault("garbled"), Fault("short"), Fault("garbled")]
    outcome = make_fetcher(double.endpoint, tmp_path, retries=2).fetch(TASK)
    assert outcome.kind == FAILED
    assert outcome.reason
    assert double.asked(KEY) == 3
    assert left_over(tmp_path) == []


def test_waits_as_long_as_the_server_asks(double: S3Double, tmp_path: Path) -> None:
    double.faults[KEY] = [Fault("status", 503, "Retry-After: 1\r\n")]
    began = time.monotonic()
    assert make_fetcher(double.endpoint, tmp_path).fetch(TASK).kind == SAVED
    assert time.monotonic() - began >= 1


def test_etags_that_are_no_hashes_do_not_stop_it(double: S3Double, tmp_path: Path) -> None:
    keys = list(double.objects)[:2]
    for key in keys:
        double.etags[key] = "0123456789abcdef" * 2
    fetcher = make_fetcher(double.endpoint, tmp_path)
    for number, key in enumerate(keys):
        assert fetcher.fetch(Task(number, key.removesuffix(".jpg"), key.partition("/")[2])).kind == SAVED
    assert [double.asked(key) for key in keys] == [2, 1]


def test_a_photo_that_is_broken_on_the_server_is_missing_for_good(double: S3Double, tmp_path: Path) -> None:
    double.objects = {KEY: photo(0)[:-40]}
    outcome = make_fetcher(double.endpoint, tmp_path).fetch(TASK)
    assert (outcome.kind, outcome.status) == (MISSING, 200)
    assert "on the server" in outcome.reason
    assert double.asked(KEY) == 1


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG"], ids=["empty", "page", "png"])
def test_what_is_no_photo_is_never_final(double: S3Double, tmp_path: Path, content: bytes) -> None:
    double.objects = {KEY: content}
    outcome = make_fetcher(double.endpoint, tmp_path).fetch(TASK)
    assert outcome.kind == FAILED
    assert "no JPEG" in outcome.reason
    assert double.asked(KEY) == 1


def test_a_network_that_is_gone_uses_up_no_attempt(double: S3Double, tmp_path: Path) -> None:
    fetcher = make_fetcher(double.endpoint, tmp_path, retries=0)
    outcomes = []
    double.go_away()
    thread = threading.Thread(target=lambda: outcomes.append(fetcher.fetch(TASK)))
    thread.start()
    thread.join(1.0)  # several attempts of at most a quarter, a half second
    assert thread.is_alive()
    double.come_back()
    thread.join(30)
    assert [outcome.kind for outcome in outcomes] == [SAVED]


def test_silence_ends_it_after_its_patience(double: S3Double, tmp_path: Path) -> None:
    double.go_away()
    outcome = make_fetcher(double.endpoint, tmp_path, patience=0.4).fetch(TASK)
    assert outcome.kind == SILENT
    assert "refused" in outcome.reason


def test_a_trickle_is_given_up(double: S3Double, tmp_path: Path) -> None:
    double.rate = 100.0
    outcome = make_fetcher(double.endpoint, tmp_path, timeout=0.3, retries=0).fetch(TASK)
    assert outcome.kind == FAILED
    assert "only" in outcome.reason


def test_stopping_ends_a_wait(double: S3Double, tmp_path: Path) -> None:
    double.always[KEY] = Fault("status", 503, "Retry-After: 100\r\n")
    fetcher = make_fetcher(double.endpoint, tmp_path)
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(fetcher.fetch(TASK)))
    thread.start()
    while not double.asked(KEY):
        assert thread.is_alive()
    fetcher.server.stopping.set()
    thread.join(10)
    assert [outcome.kind for outcome in outcomes] == [STOPPED]


def test_a_folder_that_cannot_be_written_is_told_apart(double: S3Double, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = make_fetcher(double.endpoint, tmp_path).fetch(TASK._replace(path=f"file/{TASK.path}"))
    assert (outcome.kind, outcome.status) == (NO_DISK, errno.ENOTDIR)
    assert left_over(tmp_path) == ["file"]


def test_sub_folders_are_made_when_needed(double: S3Double, tmp_path: Path) -> None:
    assert make_fetcher(double.endpoint, tmp_path).fetch(TASK._replace(path=f"00/{TASK.path}")).kind == SAVED
    assert (tmp_path / "00" / TASK.path).read_bytes() == photo(0)


def test_names_are_quoted(double: S3Double, tmp_path: Path) -> None:
    double.objects = {"train/a b+c%.jpg": photo(1)}
    assert make_fetcher(double.endpoint, tmp_path).fetch(Task(0, "train/a b+c%", "odd.jpg")).kind == SAVED


def test_requests_are_unsigned(double: S3Double, tmp_path: Path) -> None:
    make_fetcher(double.endpoint, tmp_path).fetch(TASK)
    assert "authorization" not in double.headers[KEY]
    assert "x-amz" not in double.headers[KEY]
