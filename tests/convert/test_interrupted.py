"""Kills, signals, full disks and a second converter: the result is that of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pyarrow
import pytest
from pyarrow import parquet
from raw_folder import STATE, Raw, hashes, image_bytes, name
from shapes import llava
from streaming import StreamingDataset

from theworld.data.shards.convert import convert
from theworld.data.shards.verify import verify
from theworld.errors import UserError


def readable(out: Path) -> int:
    """Samples that a reader finds at this moment; everything it is told of must be there in full."""
    if not (out / "index.json").exists():
        return 0
    shards = json.loads((out / "index.json").read_text())["shards"]
    for shard in shards:
        assert (out / shard["raw_data"]["basename"]).stat().st_size == shard["raw_data"]["bytes"]
    if (out / "manifest.json").exists():
        manifest = json.loads((out / "manifest.json").read_text())
        for generation in manifest["generations"]:
            assert (out / generation["name"] / "index.json").exists()
        assert manifest["samples"] <= sum(shard["samples"] for shard in shards)
    return sum(shard["samples"] for shard in shards)


def quiet_start(raw: Raw, *overrides: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(raw.command(*overrides), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run_and_kill(raw: Raw, seconds: float, *overrides: str) -> bool:
    """Start the command, kill -9 it (not its workers) after some time; whether it was still running."""
    with quiet_start(raw, *overrides) as process:
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            workers = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            _, alive = psutil.wait_procs(workers, timeout=300)
            assert not alive, "workers outlived the converter"
            return True
    return False


def test_what_a_kill_left_of_a_file_that_was_being_replaced_goes(tmp_path: Path) -> None:
    raw = Raw(tmp_path, 4)
    raw.add_images(1, 2, 3)
    left = [raw.out / ".index.json.29383.tmp", raw.out / ".manifest.json.7.tmp", raw.out / STATE / ".catalog.7.tmp"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    assert raw.run().returncode == 0
    assert not [path for path in left if path.exists()]
    assert len(raw.ids()) == 3


@pytest.mark.slow
def test_fifty_random_kills_change_nothing(tmp_path: Path) -> None:
    """Growth in two steps, with bad images and a held-out share, killed at 50 random moments."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    first, second = range(0, 400, 2), range(1, 400, 2)
    steps = []
    quiet = Raw(tmp_path / "quiet", 400)
    spoil = {number: image_bytes(number)[:200] for number in (10, 11, 200, 201)}
    for numbers in (first, second):
        quiet.add_images(*numbers)
        for number in set(spoil) & set(numbers):
            (quiet.images / f"{name(number)}.jpg").write_bytes(spoil[number])
        started = time.monotonic()
        assert quiet.run("convert.holdout=0.2").returncode == 0
        steps.append(time.monotonic() - started)
    expected = hashes(quiet.out), hashes(quiet.folder / "out-eval")

    kills = rounds = 0
    while kills < 50:
        rounds += 1
        raw = Raw(tmp_path / f"round-{rounds}", 400)
        for numbers, duration in zip((first, second), steps, strict=True):
            raw.add_images(*numbers)
            for number in set(spoil) & set(numbers):
                (raw.images / f"{name(number)}.jpg").write_bytes(spoil[number])
            same_times(quiet.images, raw.images)
            seen = 0
            while run_and_kill(raw, chance.uniform(0, duration * 1.1), "convert.holdout=0.2"):
                kills += 1
                now = readable(raw.out)
                assert now >= seen, "samples that a reader could see are gone"
                seen = now
            assert raw.run("convert.holdout=0.2").returncode == 0
        assert (hashes(raw.out), hashes(raw.folder / "out-eval")) == expected, f"seed {seed}, round {rounds}"
        assert not verify(raw.out).problems
        left = [path.name.partition("-")[0] for path in (raw.out / STATE).iterdir()]
        assert sorted(left) == ["entries", "format.json", "image", "lock", "source.json"]
        shutil.rmtree(raw.folder)


@pytest.mark.slow
def test_kills_change_nothing_where_pictures_are_inside_and_ids_repeat(tmp_path: Path) -> None:
    """Parquet that grows, three entries of each picture, killed at 12 random moments."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    pictures, turns = map(image_bytes, range(200)), [llava("What?", f"It is {number}.") for number in range(600)]
    entries = [{"image": data, "conversations": turns[n * 3 + k]} for n, data in enumerate(pictures) for k in range(3)]
    given = ("convert.images=null", "convert.holdout=0.2")

    def grow(raw: Raw, count: int) -> str:
        path = raw.folder / "entries.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(entries[:count]), path)
        return f"convert.json={path}"

    quiet = Raw(tmp_path / "quiet", 0)
    started = time.monotonic()
    for count in (300, 600):
        assert quiet.run(grow(quiet, count), *given).returncode == 0
    duration = (time.monotonic() - started) / 2
    expected = hashes(quiet.out), hashes(quiet.folder / "out-eval")
    assert len(quiet.ids()) == len(set(quiet.ids())) > 400
    kills = 0
    while kills < 12:
        raw = Raw(tmp_path / f"round-{kills}", 0)
        for count in (300, 600):
            while run_and_kill(raw, chance.uniform(0.3, 1.1) * duration, grow(raw, count), *given):
                kills += 1
            assert raw.run(grow(raw, count), *given).returncode == 0
        assert (hashes(raw.out), hashes(raw.folder / "out-eval")) == expected, f"seed {seed}, kills {kills}"
        shutil.rmtree(raw.folder)


def same_times(source: Path, target: Path) -> None:
    """Equal modification times, which rejected.jsonl holds."""
    for path in target.iterdir():
        status = (source / path.name).stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def stop_in_the_middle(raw: Raw, number: signal.Signals) -> tuple[int, str, list[Path]]:
    """Signal the command once a first shard is finished: exit code, stderr, finished shards."""
    process = subprocess.Popen(raw.command(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (shards := list(raw.out.glob(f"{STATE}/pending-*/fragments/*.json"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors, shards


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_state_to_go_on_from(tmp_path: Path, number: signal.Signals) -> None:
    raw = Raw(tmp_path / "raw", 600)
    raw.add_images(*range(600))
    code, errors, shards = stop_in_the_middle(raw, number)
    assert code == 130
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    done = {path: path.stat().st_mtime_ns for path in shards[0].parents[1].glob("train/*.mds")}
    assert done
    assert not (raw.out / "index.json").exists()
    assert raw.run().returncode == 0
    kept = {path: (raw.out / "gen-00000" / path.name).stat().st_mtime_ns for path in done}
    assert kept == done, "a finished shard was written again"
    assert len(raw.ids()) == 600


def test_images_that_arrive_between_the_kill_and_the_next_run_make_a_generation_of_their_own(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw", 600)
    raw.add_images(*range(0, 600, 2))
    stop_in_the_middle(raw, signal.SIGKILL)
    raw.add_images(1, 3)
    report = convert(raw.config())
    assert report.generations == ["out/gen-00000", "out/gen-00001"]
    assert raw.ids() == [name(number) for number in [*range(0, 600, 2), 1, 3]]


def test_other_settings_after_a_kill_plan_anew(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw", 600)
    raw.add_images(*range(600))
    stop_in_the_middle(raw, signal.SIGKILL)
    done = raw.run("convert.size_limit=40kb")
    assert done.returncode == 0
    assert "begun with other convert.size_limit: it is dropped" in done.stderr
    assert max(path.stat().st_size for path in raw.out.glob("gen-00000/*.mds")) > 16 << 10
    assert len(raw.ids()) == 600


def test_a_killed_worker_is_one_line_and_the_next_run_goes_on(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw", 1500)
    raw.add_images(*range(1500))
    with subprocess.Popen(raw.command(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 300
        while not list(raw.out.glob(f"{STATE}/pending-*/fragments/*.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
        workers = [
            child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
        workers[0].kill()
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert errors.count("error:") == 1
    assert "a worker process was killed" in errors
    assert "Traceback" not in errors
    assert raw.run().returncode == 0
    assert len(raw.ids()) == 1500


def test_a_second_converter_says_so(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw", 600)
    raw.add_images(*range(600))
    with quiet_start(raw) as process:
        deadline = time.monotonic() + 300
        while not list(raw.out.glob(f"{STATE}/pending-*")):
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(UserError, match=f"another converter \\(process {process.pid} on "):
            convert(raw.config())
        process.send_signal(signal.SIGCONT)
        process.wait(timeout=300)
    assert process.returncode == 0
    assert len(raw.ids()) == 600


@pytest.mark.parametrize("lost", [["index.json"], ["manifest.json"], ["index.json", "manifest.json"]])
def test_root_files_that_a_kill_did_not_let_be_written_are_made_again(tmp_path: Path, lost: list[str]) -> None:
    raw = Raw(tmp_path / "raw", 30)
    raw.add_images(*range(30))
    (raw.images / f"{name(3)}.jpg").write_bytes(b"bad")
    convert(raw.config())
    expected = hashes(raw.out)
    for file in lost:
        (raw.out / file).unlink()
    convert(raw.config())
    assert hashes(raw.out) == expected


def test_an_image_that_changes_after_the_scan_is_left_for_the_next_run(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw", 600)
    raw.add_images(*range(600))
    stop_in_the_middle(raw, signal.SIGKILL)
    other = image_bytes(1000, size=(40 + 599 % 7, 30 + 599 % 5))  # another picture of the annotation's size
    (raw.images / f"{name(599)}.jpg").write_bytes(other)
    (raw.images / f"{name(598)}.jpg").unlink()
    report = convert(raw.config())
    assert report.generations == ["out/gen-00000", "out/gen-00001"] or raw.rejected().get(name(599), "").startswith(
        "image changed"
    )
    (raw.images / f"{name(598)}.jpg").write_bytes(image_bytes(598))
    convert(raw.config())
    assert sorted(raw.ids()) == [name(number) for number in range(600)]
    assert raw.rejected() == {}


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("filler", [0, 2_900_000, 3_100_000])
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(tmp_path: Path, small_disk: Path, filler: int) -> None:
    raw = Raw(tmp_path / "raw", 1500)
    raw.add_images(*range(1500))
    assert sum(path.stat().st_size for path in raw.images.iterdir()) > 2 * (3 << 20) // 3
    blocker = small_disk / "blocker"
    blocker.write_bytes(bytes(min(filler, 3 << 20) or 1_500_000))
    raw.out = small_disk / "out"
    done = raw.run()
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert readable(raw.out) == 0
    finished = {f"shard.{path.stem[-5:]}.mds" for path in raw.out.glob(f"{STATE}/pending-*/fragments/train-*.json")}
    shards = [path for path in raw.out.glob(f"{STATE}/pending-*/train/*.mds") if path.name in finished]
    kept = {path.name: path.stat().st_mtime_ns for path in shards}
    if not filler:
        assert kept
    blocker.unlink()
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    assert raw.run().returncode == 0
    assert {file: (raw.out / "gen-00000" / file).stat().st_mtime_ns for file in kept} == kept
    quiet = raw.config(out=str(tmp_path / "quiet"))
    convert(quiet)
    assert hashes(raw.out) == hashes(tmp_path / "quiet")


def test_a_reader_while_a_generation_is_written_sees_the_earlier_ones(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw", 600)
    raw.add_images(*range(10))
    convert(raw.config())
    raw.add_images(*range(10, 600))
    stop_in_the_middle(raw, signal.SIGKILL)
    data_set = StreamingDataset(local=str(raw.out), shuffle=False, batch_size=1)
    assert [data_set[place]["id"] for place in range(len(data_set))] == [name(number) for number in range(10)]
