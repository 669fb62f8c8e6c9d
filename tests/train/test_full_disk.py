"""A disk that is full when a checkpoint is to be written, at a start, and after a crash: real file systems of 8 MB."""

from __future__ import annotations

import logging
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.conftest import smoke_config
from theworld.checkpoint.on_disk import SAVING, list_checkpoints
from theworld.checkpoint.state_size import bytes_to_write
from theworld.config.schema import Config
from theworld.disk_space import CannotWrite
from theworld.errors import NotNow, RunFailed
from theworld.files import read_json_lines
from theworld.train.callbacks.ledger import Ledger
from theworld.train.failures import judge
from theworld.train.run import train

SIZE = 8 << 20
BATCHES = 7
MARGIN = 1_500_000
"""Room for logs and the ledger, not for a checkpoint."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, left: int, name: str = "blocker") -> Path:
    """Somebody else's file takes all of the disk but so many bytes."""
    blocker = disk / name
    blocker.parent.mkdir(parents=True, exist_ok=True)
    with blocker.open("wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - left))
    return blocker


def config_on(raw: Path, mds: Path, tmp_path: Path, folder: Path, *overrides: str) -> Config:
    return smoke_config(
        raw,
        mds,
        f"save_folder={folder}",
        f"train_loader.dataset.local={tmp_path / 'cache'}",
        *("global_train_batch_size=4", "device_train_microbatch_size=2", "train_loader.num_workers=0"),
        *("save_interval=2ba", "save_num_checkpoints_to_keep=1"),
        *overrides,
    )


def batches_of(folder: Path) -> list[int]:
    return [line["batch"] for line in read_json_lines(folder / "ledger" / "rank0.jsonl")]


class RoomAgain(logging.Handler):
    """Removes the blocker when the run has said that a checkpoint did not fit."""

    def __init__(self, blocker: Path) -> None:
        super().__init__()
        self.blocker = blocker
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "is not written" in record.getMessage():
            self.lines.append(record.getMessage())
            self.blocker.unlink(missing_ok=True)


@pytest.mark.slow
def test_training_goes_on_where_the_next_save_fits(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, disk: Path
) -> None:
    room = RoomAgain(fill(disk, left=MARGIN))
    logger = logging.getLogger("theworld.checkpoint.saver")
    logger.addHandler(room)
    try:
        assert train(config_on(raw_sample, mds_sample, tmp_path, disk / "run")) == 0
    finally:
        logger.removeHandler(room)
    assert len(room.lines) == 1
    assert "MB are free; the newest is none; training goes on" in room.lines[0]
    assert batches_of(disk / "run") == list(range(BATCHES))
    assert [one.batch for one in list_checkpoints(disk / "run")] == [BATCHES]
    assert not (disk / "run" / SAVING).exists()


@pytest.mark.slow
@pytest.mark.parametrize("left", [MARGIN, 0])
def test_the_run_ends_before_more_than_two_intervals_are_at_stake(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, disk: Path, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Also with not a byte left: lines of the ledger wait for a save that never comes."""
    config = config_on(raw_sample, mds_sample, tmp_path, disk / "run", "max_duration=2ba")
    assert train(config) == 0
    whole = [one.path for one in list_checkpoints(disk / "run")]
    blocker = fill(disk, left=MARGIN)
    config.max_duration = "1ep"
    full = BlockFully(disk, left)
    logger = logging.getLogger("theworld.checkpoint.saver")
    logger.addHandler(full)
    try:
        with pytest.raises(RunFailed, match=r"checkpoint of batch 6 is not written: .*; the newest is that of batch 2"):
            train(config)
    finally:
        logger.removeHandler(full)
    assert full.said == 1
    assert ("metrics are not written until there is room" in caplog.text) == (left == 0)
    assert [one.path for one in list_checkpoints(disk / "run")] == whole
    assert not (disk / "run" / SAVING).exists()
    assert batches_of(disk / "run")[:4] == [0, 1, 2, 3]
    for file in (blocker, disk / "rest"):
        file.unlink(missing_ok=True)
    assert train(config) == 0
    assert len(list_checkpoints(disk / "run")) == 1


class BlockFully(logging.Handler):
    """Takes the rest of the disk when the first save has failed."""

    def __init__(self, disk: Path, left: int) -> None:
        super().__init__()
        self.disk, self.left, self.said = disk, left, 0

    def emit(self, record: logging.LogRecord) -> None:
        if "training goes on" in record.getMessage():
            self.said += 1
            if not self.left:
                fill(self.disk, left=0, name="rest")


def test_lines_of_the_ledger_wait_for_room(disk: Path) -> None:
    nothing_new: Any = SimpleNamespace(snapshot=SimpleNamespace(generations=[]), mix=SimpleNamespace(is_named=False))
    ledger = Ledger(disk, 1, nothing_new)
    ledger.proof.begin_attempt(1, 0, 1)
    blocker = fill(disk, left=0)
    ledger.path.parent.mkdir()
    ledger.file = ledger.path.open("ab", buffering=0)
    lines = b"".join(b'{"batch": %d}\n' % batch for batch in range(1000))
    ledger.waiting += lines
    with pytest.raises(CannotWrite, match=r"rank0.jsonl: No space left on device; 0.0 MB are free"):
        ledger.sync()
    blocker.unlink()
    ledger.sync()
    assert ledger.path.read_bytes() == lines
    ledger.file.close()


@pytest.mark.slow
def test_a_write_that_breaks_off_leaves_no_half_file(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit that the free space does not tell: of the size of a file, as a quota is one of all files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(RunFailed, match=r"batch 4 is not written: .*: a checkpoint takes [\d.]+ MB"):
            train(config_on(raw_sample, mds_sample, tmp_path, tmp_path / "run"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "the checkpoint of batch 2 is not written" in caplog.text
    assert not (tmp_path / "run" / SAVING).exists()
    assert not list_checkpoints(tmp_path / "run")


@pytest.mark.slow
def test_a_checkpoint_larger_than_the_disk_ends_the_run_at_once(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,size=500k", str(disk)], check=True)
    with pytest.raises(RunFailed, match=r"batch 2 is not written: .* MB are free of 0.5 MB"):
        train(config_on(raw_sample, mds_sample, tmp_path, disk / "run"))


@pytest.mark.slow
def test_a_half_save_that_fills_the_disk_goes_before_all_else(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, disk: Path
) -> None:
    half = fill(disk, left=0, name=f"run/{SAVING}/1-ep0-ba2/ep0-ba2-rank0.pt")
    assert shutil.disk_usage(disk).free == 0
    assert train(config_on(raw_sample, mds_sample, tmp_path, disk / "run", "max_duration=2ba")) == 0
    assert not half.exists()


def test_a_start_on_a_full_disk_is_one_line(raw_sample: Path, mds_sample: Path, tmp_path: Path, disk: Path) -> None:
    fill(disk, left=0)
    with pytest.raises(NotNow, match=r"save_folder: .*: No space left on device; 0.0 MB are free"):
        train(config_on(raw_sample, mds_sample, tmp_path, disk / "run"))


def test_a_crash_is_written_down_in_the_place_of_the_half_save(disk: Path) -> None:
    half = fill(disk, left=0, name=f"run/{SAVING}/1-ep0-ba2/ep0-ba2-rank0.pt")
    assert judge(disk / "run", 1).again
    assert not half.exists()
    failures = disk / "run" / "failures.jsonl"
    assert len(read_json_lines(failures)) == 1
    failures.unlink()  # the rest of whose block of the disk would hold another line
    fill(disk, left=0)
    told = judge(disk / "run", 1)
    assert not told.again
    assert "not started again, for that cannot be written down" in told.line
    assert "0.0 MB are free" in told.line


def test_a_state_is_as_large_as_what_is_written_of_it(tmp_path: Path) -> None:
    weight = torch.zeros(1000, 100)
    state = {"a": weight, "tied": weight, "steps": [torch.ones(10)], "text": "x" * 50, "number": 3}
    assert bytes_to_write(state, whole=True) == 400_000 + 40 + 50
    assert bytes_to_write(state, whole=False) == 0
    torch.save(state, tmp_path / "state.pt")
    assert 400_000 < (tmp_path / "state.pt").stat().st_size < 410_000
