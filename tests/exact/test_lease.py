"""One run, one folder: who gets the lease, when, and what ends the start that has lost it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from launching import ROOT

from theworld import lease
from theworld.errors import EXIT_BAD_INPUT, EXIT_RUN_AGAIN, NotNow, UserError
from theworld.lease import Holder, Lease, Process, Superseded, begin, newest_holder, write_holder

ELSEWHERE = Process(host="other", machine="another machine", pid=1, started=1)
HOLD = """
import sys, time
from pathlib import Path
from theworld import lease
lease.BEAT = 0.1
held = lease.Lease.take(Path(sys.argv[1]))
print(held.launch, flush=True)
for line in sys.stdin:
    try:
        held.look()
        print("mine", flush=True)
    except lease.Superseded as error:
        print(error, flush=True)
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.1)
    monkeypatch.setattr(lease, "LOOK_EVERY", 0.05)


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease of ``tmp_path``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        yield process
        process.kill()


def held_elsewhere(folder: Path, silent: float, process: Process = ELSEWHERE) -> None:
    """The lease of a start on another machine, whose last sign of life is so old."""
    (folder / "lease").mkdir()
    path = folder / "lease" / "4.json"
    write_holder(path, Holder(4, process, beat=9))
    os.utime(path, (time.time() - silent, time.time() - silent))


def test_a_lease_that_was_given_back_is_taken_at_once_under_the_next_number(tmp_path: Path) -> None:
    for number in (1, 2):
        held = Lease.take(tmp_path)
        assert held.launch == number
        held.look()
        held.release()
    held = Lease.take(tmp_path, after=9)
    assert held.launch == 10
    assert [path.name for path in (tmp_path / "lease").iterdir()] == ["10.json"]
    held.release()


@pytest.mark.usefixtures("quick")
def test_a_start_beside_a_living_one_is_refused_in_one_line(
    tmp_path: Path, other_process: subprocess.Popen[str]
) -> None:
    with pytest.raises(
        UserError, match=r"in use by attempt 1 .*process \d+.* last sign of life is \d+ s old"
    ) as refused:
        Lease.take(tmp_path)
    assert refused.value.exit_code == EXIT_BAD_INPUT
    assert str(other_process.pid) in str(refused.value)
    newest = newest_holder(tmp_path / "lease")
    assert newest is not None
    assert newest.launch == 1


def test_a_killed_process_of_this_machine_is_followed_at_once(
    tmp_path: Path, other_process: subprocess.Popen[str]
) -> None:
    other_process.kill()
    # It has ended, and stays a zombie: nobody has asked for its exit code.
    os.waitid(os.P_PID, other_process.pid, os.WEXITED | os.WNOWAIT)
    held = Lease.take(tmp_path, stop=lambda: True)  # which is asked only where there is something to wait for
    assert held.launch == 2
    held.release()


@pytest.mark.usefixtures("quick")
def test_a_stopped_process_is_waited_for_and_ends_when_it_goes_on(
    tmp_path: Path, other_process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SILENCE", 1.0)
    other_process.send_signal(signal.SIGSTOP)
    held = Lease.take(tmp_path)
    assert held.launch == 2
    other_process.send_signal(signal.SIGCONT)
    answer, _ = other_process.communicate("?\n", timeout=300)
    assert "a newer start of the run, attempt 2" in answer
    assert "attempt 1, ends and leaves its files alone" in answer
    held.look()
    held.release()
    assert held.launch == 2


def test_a_silent_start_on_another_machine_is_followed_after_two_minutes(tmp_path: Path) -> None:
    assert lease.SILENCE == 120
    held_elsewhere(tmp_path, silent=118.0)
    begun = time.monotonic()
    held = Lease.take(tmp_path)
    assert held.launch == 5
    assert 1.5 < time.monotonic() - begun < 10
    held.release()


def test_asked_to_stop_while_it_waits(tmp_path: Path) -> None:
    held_elsewhere(tmp_path, silent=10.0)
    with pytest.raises(NotNow, match="attempt 4") as stopped:
        Lease.take(tmp_path, stop=lambda: True)
    assert stopped.value.exit_code == EXIT_RUN_AGAIN


@pytest.mark.parametrize(("job", "restart", "at_once"), [("7", 2, True), ("7", 1, False), ("8", 5, False)])
def test_the_same_job_started_again_takes_over_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, restart: int, at_once: bool
) -> None:
    held_elsewhere(tmp_path, silent=1.0, process=replace(ELSEWHERE, job="7", restart=1))
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
    if at_once:
        Lease.take(tmp_path, stop=lambda: True).release()  # which is asked only where there is something to wait for
    else:
        with pytest.raises(NotNow):
            Lease.take(tmp_path, stop=lambda: True)


def test_of_many_that_come_at_once_one_gets_the_number(tmp_path: Path) -> None:
    won: list[bool] = []
    together = threading.Barrier(8)

    def come() -> None:
        together.wait()
        won.append(begin(tmp_path, 1, ELSEWHERE))

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"{}", b'{"process": {"name": 1}, "beat": 1, "ended": true}'])
def test_a_damaged_lease_is_waited_for_and_followed(tmp_path: Path, content: bytes) -> None:
    held_elsewhere(tmp_path, silent=0.0)
    path = tmp_path / "lease" / "4.json"
    path.write_bytes(content)
    with pytest.raises(NotNow):
        Lease.take(tmp_path, stop=lambda: True)
    os.utime(path, (time.time() - 130, time.time() - 130))
    Lease.take(tmp_path).release()


def test_a_history_from_elsewhere_moves_the_number_up(tmp_path: Path) -> None:
    """As when the starts before this one are known to the Hub only."""
    lease = Lease.take(tmp_path)
    lease.move_above(0)
    assert lease.launch == 1
    lease.move_above(4)
    assert lease.launch == 5
    lease.look()
    assert [path.name for path in (tmp_path / "lease").glob("*.json")] == ["5.json"]
    assert begin(tmp_path / "lease", 9, ELSEWHERE)
    with pytest.raises(Superseded):
        lease.move_above(8)
    lease.release()


def test_a_start_that_was_superseded_writes_nothing(tmp_path: Path) -> None:
    old = Lease.take(tmp_path)
    assert begin(tmp_path / "lease", 2, ELSEWHERE)
    before = {path.name: path.read_bytes() for path in (tmp_path / "lease").iterdir()}
    with pytest.raises(Superseded):
        old.look()
    assert old.lost
    old.release()
    after = {path.name: path.read_bytes() for path in (tmp_path / "lease").iterdir()}
    assert before == after
