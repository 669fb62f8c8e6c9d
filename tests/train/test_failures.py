"""What a run died of: which rank's error is the cause, and what killed a loader worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from theworld.errors import RunFailed
from theworld.train.failures import judge
from theworld.train.failures_of_ranks import clear_reasons, first_reason, note_reason
from theworld.train.killed_workers import killed_workers_as_one_line, out_of_memory_kills

ECHO = "RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:3"


def test_the_oldest_reason_that_is_no_echo_counts(tmp_path: Path) -> None:
    note_reason(tmp_path, 0, ECHO)
    note_reason(tmp_path, 3, "ValueError: the cause, at s3://KEY:SECRET@bucket")
    note_reason(tmp_path, 2, "ValueError: later")
    note_reason(tmp_path, 1, ECHO)
    assert first_reason(tmp_path) == "rank 3: ValueError: the cause, at s3://<hidden>@bucket"
    assert "the cause" in judge(tmp_path, 1).line
    assert judge(tmp_path, 1).line.startswith("failed after batch 0: exit code 1")
    note_reason(tmp_path, 0, ECHO)
    assert first_reason(tmp_path) == ECHO
    clear_reasons(tmp_path)
    assert first_reason(tmp_path) is None


class Deadly(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_killed_loader_worker_is_one_line() -> None:
    with pytest.raises(RunFailed, match=r"a loader worker was killed \(process \d+: .*; the kernel") as failed:
        read_all()
    assert "\n" not in str(failed.value)
    assert failed.value.exit_code == 1


def read_all() -> None:
    with killed_workers_as_one_line():
        list(DataLoader(Deadly(), num_workers=1))


def test_the_control_groups_count_is_read(tmp_path: Path) -> None:
    own = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()[-1].rpartition(":")[2].lstrip("/")
    (tmp_path / own).mkdir(parents=True, exist_ok=True)
    (tmp_path / own / "memory.events").write_text("low 0\nhigh 0\noom 3\noom_kill 2\n", encoding="utf-8")
    assert out_of_memory_kills(tmp_path) == 2
    assert out_of_memory_kills(tmp_path / "none") == 0
