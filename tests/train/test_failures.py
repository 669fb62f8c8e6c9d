"""What a run died of: which rank's error is the cause, and what killed a loader worker."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tests.conftest import SMOKE_YAML
from theworld.commands.after_crash import command
from theworld.data.batches.worker_notes import WorkerNotes
from theworld.data.shards import add_latents
from theworld.errors import RunFailed
from theworld.killed_workers import killed_workers_as_one_line, out_of_memory_kills
from theworld.train.data import begin_worker
from theworld.train.failures import Verdict, judge
from theworld.train.failures_of_ranks import clear_reasons, first_reason, note_reason

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


def test_what_a_watchdog_ends_is_no_crash_whatever_the_exit_code(tmp_path: Path) -> None:
    """Rank 0, which stood still, was killed by the launcher; rank 1's watchdog has ended the run."""
    for _ in range(9):
        note_reason(tmp_path, 2, ECHO)
        note_reason(tmp_path, 1, "no batch for 900 s: waiting for rank 0, which gives no sign of life", stall=True)
        verdict = judge(tmp_path, 137, first_pause=40)
        assert (verdict.again, verdict.pause) == (True, 40)
        assert verdict.line.startswith("rank 1: no batch for 900 s: waiting for rank 0")
    assert not (tmp_path / "failures.jsonl").exists()
    note_reason(tmp_path, 2, "ValueError: the cause")
    note_reason(tmp_path, 1, "no batch for 900 s", stall=True)
    assert judge(tmp_path, 137).line.startswith("failed after batch 0: rank 2: ValueError: the cause")


def crash(folder: Path, batch: int) -> Verdict:
    """A start that has come so far and died."""
    line = json.dumps({"launch": 1, "resumed_batch": batch})
    (folder / "launches.jsonl").write_text(line + "\n", encoding="utf-8")
    return judge(folder, 1, first_pause=30)


def test_crashes_at_varying_steps_are_counted_since_the_last_new_checkpoint(tmp_path: Path) -> None:
    first = [crash(tmp_path, batch) for batch in (7, 3, 9, 5)]
    assert [one.again for one in first] == [True] * 4
    assert [one.pause for one in first] == [30, 60, 120, 240]
    assert first[1].line.endswith("starting again in 60 s (failure 2 of 5 without a checkpoint)")
    (tmp_path / "ep0-ba10-rank0.pt").touch()  # progress: all tries anew
    second = [crash(tmp_path, batch) for batch in range(11, 16)]
    assert [one.again for one in second] == [True] * 4 + [False]
    assert second[0].pause == 30
    assert second[4].line.startswith("failed 5 times since the checkpoint of batch 10, the last time after batch 15: ")
    assert "not started again" in second[4].line
    assert crash(tmp_path, 16).pause == 30  # a person has started it once more


def test_the_same_step_three_times_and_no_pause_above_an_hour(tmp_path: Path) -> None:
    assert [crash(tmp_path, 7).again for _ in range(3)] == [True, True, False]
    assert judge(tmp_path, 1, first_pause=5000).pause == 3600


@pytest.mark.parametrize("code", [75, 85])
def test_what_wants_to_be_started_again_is_no_crash(tmp_path: Path, code: int) -> None:
    assert all(judge(tmp_path, code).again for _ in range(9))
    assert not (tmp_path / "failures.jsonl").exists()


def test_the_command_tells_the_job_script_its_pause(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--pause", "7", "1", SMOKE_YAML, f"save_folder={tmp_path}"]
    assert [command(argv), command(argv), command(argv)] == [0, 0, 1]
    lines = capsys.readouterr().out.splitlines()
    assert [lines[1], lines[3]] == ["7", "14"]
    assert len(lines) == 5
    (tmp_path / "failures.jsonl").write_text("{half\n", encoding="utf-8")
    assert command(argv) == 0


class Deadly(Dataset[int]):
    """Its worker is sent a signal, or exits."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), self.number)
        return index


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGKILL, "Killed"), (signal.SIGTERM, "Terminated")],
)
@pytest.mark.parametrize("told", [True, False])
def test_a_killed_loader_worker_is_one_line_with_the_signal(
    number: int, name: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where torch finds it gone before it was told that a child has ended."""
    if not told:
        monkeypatch.setattr("torch.utils.data._utils.signal_handling._set_SIGCHLD_handler", lambda: None)
    with pytest.raises(RunFailed, match=rf"killed \(process \d+: is killed by signal: {name}; the kernel") as failed:
        read_all(number)
    assert "\n" not in str(failed.value)
    assert failed.value.exit_code == 1


def read_all(number: int) -> None:
    with killed_workers_as_one_line():
        list(DataLoader(Deadly(number), num_workers=1))


class Unsendable(Dataset):
    """Batches that cannot be handed over, as with newer torch those for which shared memory has no room."""

    notes = WorkerNotes(1, str)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> object:
        return lambda: index


@pytest.mark.parametrize("init", [begin_worker, add_latents.begin_worker])
def test_a_worker_that_loses_a_batch_ends(init: Callable[[int], None], capfd: pytest.CaptureFixture[str]) -> None:
    """Python's queue would print the error and go on; the loader would wait for the batch for ever."""
    loader = DataLoader(Unsendable(), batch_size=None, num_workers=1, worker_init_fn=init, timeout=120)
    told = r"process \d+: exited .*code 1; what it said of it stands in the log"
    with pytest.raises(RunFailed, match=told), killed_workers_as_one_line():
        list(loader)
    assert "a loader worker cannot hand over a batch: " in capfd.readouterr().err


def test_the_control_groups_count_is_read(tmp_path: Path) -> None:
    own = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()[-1].rpartition(":")[2].lstrip("/")
    (tmp_path / own).mkdir(parents=True, exist_ok=True)
    (tmp_path / own / "memory.events").write_text("low 0\nhigh 0\noom 3\noom_kill 2\n", encoding="utf-8")
    assert out_of_memory_kills(tmp_path) == 2
    assert out_of_memory_kills(tmp_path / "none") == 0
