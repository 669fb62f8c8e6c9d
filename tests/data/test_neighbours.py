"""Starts beside other jobs of the same user on the same node, running ones and killed ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.launcher import Script

# Each job imports streaming; and the freed number of a segment may be taken by whatever else runs on the machine.
pytestmark = [pytest.mark.slow, pytest.mark.alone]

JOB = """
import sys
from tests.helpers.loader import ids_of, open_data, smoke_on
mds, cache = sys.argv[1:]
data = open_data(smoke_on(mds, cache, "train_loader.num_workers=1"))
batches = iter(data.spec.dataloader)
seen = ids_of(next(batches))
print("reading", data.dataset.shards._shm_prefix_int, flush=True)
sys.stdin.readline()
for batch in batches:
    seen += ids_of(batch)
data.close()
print("done", len(seen), len(set(seen)), flush=True)
"""
SEGMENTS = Path("/dev/shm")


class Job:
    """A process that opens the data set, reads a batch, waits for word, and reads the rest of the pass."""

    def __init__(self, mds: Path, cache: Path, temporary: Path) -> None:
        temporary.mkdir(exist_ok=True)
        environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOB, str(mds), str(cache)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_until_reading(self) -> int:
        """Returns Streaming's number of its shared memory."""
        assert self.process.stdout is not None
        word, _, number = self.process.stdout.readline().partition(" ")
        assert word == "reading", self.process.communicate()
        return int(number)

    def kill(self) -> None:
        """Job, workers and Python's resource tracker at once, as the end of a node's memory or a scheduler does."""
        os.killpg(self.process.pid, 9)
        self.process.communicate()

    def finish(self) -> str:
        output, errors = self.process.communicate("go on\n", timeout=120)
        assert self.process.returncode == 0, errors
        return output.strip()


def segments(number: int) -> list[str]:
    return sorted(path.name for path in SEGMENTS.glob(f"{number:06}_*"))


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """For ``TMPDIR``: sockets in it must have short names, and pytest's own folders are long."""
    with tempfile.TemporaryDirectory(prefix="n-") as folder:
        yield Path(folder)


@pytest.fixture
def jobs() -> Iterator[list[Job]]:
    started: list[Job] = []
    yield started
    for job in started:
        if job.process.poll() is None:
            job.kill()


def test_jobs_that_start_at_the_same_moment_and_after_a_kill_do_not_disturb_each_other(
    mds_sample: Path, tmp_path: Path, short_folder: Path, jobs: list[Job]
) -> None:
    cache = tmp_path / "cache"
    first, second = short_folder / "first", short_folder / "second"
    jobs += [Job(mds_sample, cache, first), Job(mds_sample, cache, first), Job(mds_sample, cache, second)]
    numbers = [job.wait_until_reading() for job in jobs]
    assert len(set(numbers)) == 3
    assert all(segments(number) for number in numbers)

    jobs[2].kill()
    left = segments(numbers[2])
    assert left, "kill -9 leaves segments; if it no longer does, their removal need not be tested"
    running = segments(numbers[0]) + segments(numbers[1])

    jobs.append(Job(mds_sample, cache, second))
    numbers.append(jobs[3].wait_until_reading())
    assert segments(numbers[0]) + segments(numbers[1]) == running
    assert numbers[2] == numbers[3] or not segments(numbers[2])
    for job in (jobs[3], jobs[0], jobs[1]):
        assert job.finish() == "done 26 26"
    assert not any(segments(number) for number in numbers)
    assert not list((cache / ".launches").iterdir())


def test_a_segment_that_another_job_has_made_meanwhile_stays(
    mds_sample: Path, tmp_path: Path, short_folder: Path, jobs: list[Job]
) -> None:
    """A dead job's record names a segment that was removed since, and whose name a stranger's job has taken."""
    jobs.append(Job(mds_sample, tmp_path / "cache", short_folder / "first"))
    number = jobs[0].wait_until_reading()
    jobs[0].kill()
    left = segments(number)
    assert left
    stranger = SEGMENTS / left[0]
    stranger.unlink()
    # Another inode for sure: the freed number is taken first.
    occupied = SEGMENTS / f"theworld-test-{os.getpid()}-{time.monotonic_ns()}"
    occupied.touch()
    stranger.write_text("a stranger's")
    try:
        jobs.append(Job(mds_sample, tmp_path / "cache", short_folder / "first"))
        jobs[1].wait_until_reading()
        assert segments(number) == [stranger.name]
        assert jobs[1].finish() == "done 26 26"
    finally:
        stranger.unlink()
        occupied.unlink()


def test_records_are_of_the_living_only(mds_sample: Path, tmp_path: Path, short_folder: Path, jobs: list[Job]) -> None:
    jobs.append(Job(mds_sample, tmp_path / "cache", short_folder / "first"))
    number = jobs[0].wait_until_reading()
    records = [
        {json.loads(line)["name"] for line in path.read_text().splitlines()}
        for path in (SEGMENTS / f"theworld-{os.getuid()}").glob(f"{jobs[0].process.pid}.*.json")
    ]
    assert records == [set(segments(number))]
    assert jobs[0].finish() == "done 26 26"
    assert not list((SEGMENTS / f"theworld-{os.getuid()}").glob(f"{jobs[0].process.pid}.*.json"))


ABANDONED = """
import sys
from tests.helpers.loader import open_data, smoke_on
batches = iter(open_data(smoke_on(*sys.argv[1:], "train_loader.num_workers=1")).spec.dataloader)
next(batches)
print("end", flush=True)
"""


def test_a_process_that_leaves_a_pass_unread_ends(mds_sample: Path, tmp_path: Path) -> None:
    """Loader workers do not listen to SIGTERM; Python would wait for them at exit without end."""
    done = Script(ABANDONED, str(mds_sample), str(tmp_path)).end()
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
