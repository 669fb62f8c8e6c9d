"""kill -9 at random moments, and the memory that a full-size run takes."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from bucket import Place, expected, image_id, objects, photo
from s3_double import S3Double

from theworld.data.shards.dataset import DataSet, generation_ids
from theworld.data.shards.verify import verify

pytestmark = pytest.mark.slow

COUNT = 400
KILLS = 25
FULL_SIZE = 909_419


def run_and_kill(command: list[str], seconds: float) -> bool:
    """kill -9 the command (not its workers) after some time; whether it was still running."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            workers = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            _, alive = psutil.wait_procs(workers, timeout=300)
            assert not alive, "workers outlived the downloader"
            return True
    return False


def random_source() -> random.Random:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


def test_random_kills_leave_only_whole_files_and_cost_few_requests(tmp_path: Path) -> None:
    chance = random_source()
    with S3Double(objects(COUNT, side=60), latency=0.15) as double:
        place = Place(tmp_path, double.endpoint, COUNT + 3)
        kills = 0
        seen: dict[str, int] = {}
        while run_and_kill(place.command("download.workers=8"), chance.uniform(0.3, 2.5)):
            kills += 1
            for name, data in place.files().items():
                if name.endswith(".jpg"):
                    assert data == double.objects[f"train/{name}"], f"{name} is not whole"
            times = {path.name: path.stat().st_mtime_ns for path in place.images.glob("*.jpg")}
            assert seen.items() <= times.items(), "a whole file was lost or fetched again"
            seen = times
            if kills >= KILLS:
                break
        double.latency = 0
        done = place.run()
        assert done.returncode == 0, done.stderr
        assert {name: data for name, data in place.files().items() if name != "missing.jsonl"} == expected(
            double, COUNT
        )
        assert len(place.missing()) == 3
        assert not list((place.images / ".download" / "tmp").iterdir())
        # Each kill may cost what was on its way: at most the eight connections.
        assert len(double.requests) <= COUNT + 3 + (8 + 3) * kills


def test_random_kills_on_the_way_to_shards(tmp_path: Path) -> None:
    chance = random_source()
    with S3Double(objects(COUNT), latency=0.05) as double:
        place = Place(tmp_path, double.endpoint, COUNT)
        command = place.command("download.workers=8", "download.to=mds", "download.spool_limit=4mb")
        for _ in range(10):
            if not run_and_kill(command, chance.uniform(0.5, 4.0)):
                break
        double.latency = 0
        done = place.run("download.to=mds")
        assert done.returncode == 0, done.stderr
        data_set = DataSet(place.folder / "mds")
        ids = [name for folder in data_set.generations() for name in generation_ids(folder)]
        assert sorted(ids) == sorted(image_id(number) for number in range(COUNT))
        assert not verify(place.folder / "mds").problems
        assert not list(place.images.rglob("*.jpg"))


class Everything(Mapping[str, bytes]):
    """A bucket that has every key, always the same photo."""

    def __getitem__(self, key: str) -> bytes:
        return photo(0)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return FULL_SIZE


def test_memory_at_full_size(tmp_path: Path) -> None:
    """909,419 ids, a run of some thousand images: no process above 300 MB."""
    with S3Double(Everything()) as double:
        place = Place(tmp_path, double.endpoint)
        place.list.write_text("".join(f"train/{number:016x}\n" for number in range(FULL_SIZE)))
        command = place.command(f"download.list={place.list}", "download.layout=sharded")
        peak = 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 300
            while len(double.requests) < 3000:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                watched = psutil.Process(process.pid)
                peak = max([peak, *(one.memory_info().rss for one in [watched, *watched.children()])])
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=300)
        assert process.returncode == 75, errors
        assert "909,419" in output
        print(f"largest process: {peak / 1e6:.0f} MB")
        assert peak < 300e6
