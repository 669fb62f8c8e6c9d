"""A run's state from the files of its save folder: each state, figures, damage, and what must not reach a terminal."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from theworld.errors import EXIT_RUN_AGAIN, UserError
from theworld.lease import FOLDER, Holder, Process, write_holder
from theworld.monitor.ends import note_end, read_ends
from theworld.monitor.prometheus import METRICS, as_text, write_metrics
from theworld.monitor.run_status import read_status
from theworld.monitor.status_table import as_lines

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = Process(host="other", machine="another machine", pid=1, started=1)
FIGURES = {
    "batch": 7,
    "pass": 0,
    "samples": 56,
    "of": 112,
    "samples_per_s": 4.0,
    "seconds_left": 14.0,
    "loader_wait": 0.25,
    "loss": 2.5,
    "grad_norm": math.inf,
    "saved_at": 1.0,
    "save_s": 1.5,
    "hub_backlog": 2,
    "samples_without_loss": 3,
    "lost_steps": 1,
}


def held(folder: Path, process: Process, age: float = 0.0, ended: bool = False, **doing: Any) -> None:
    (folder / FOLDER).mkdir(exist_ok=True)
    path = folder / FOLDER / "2.json"
    write_holder(path, Holder(2, process, 5, ended, {"figures": FIGURES, **doing}))
    os.utime(path, (time.time() - age, time.time() - age))


def state(folder: Path) -> tuple[str, str]:
    found = read_status(folder)
    return found.state, found.why


def test_each_state_by_the_signs_of_life(tmp_path: Path) -> None:
    assert state(tmp_path) == ("not started", "")
    held(tmp_path, ELSEWHERE, what="training", still=3.0)
    assert state(tmp_path) == ("running", "training")
    held(tmp_path, ELSEWHERE, what="train_loader.wait", planned=True, still=300.0)
    assert state(tmp_path) == ("waiting", "train_loader.wait, for 300 s")
    found = {"waits": "the loader (rank 3, worker 1)"}
    held(tmp_path, ELSEWHERE, what="ranks", still=70.0, found=found)
    assert state(tmp_path) == ("stuck", "no batch for 70 s: waiting for the loader (rank 3, worker 1)")
    held(tmp_path, ELSEWHERE, what="ranks", still=70.0, found={**found, "planned": True})
    assert state(tmp_path)[0] == "waiting"
    held(tmp_path, ELSEWHERE, age=60, what="training")
    assert state(tmp_path) == ("stuck", "no sign of life for 60 s")
    held(tmp_path, ELSEWHERE, age=200, what="training")
    assert state(tmp_path) == ("stopped", "no sign of life for 200 s")
    held(tmp_path, Process(), age=200, what="training")
    assert state(tmp_path) == ("stuck", "no sign of life for 200 s"), "this process lives"
    held(tmp_path, Process(pid=os.getpid(), started=1), what="training")
    assert state(tmp_path) == ("stopped", "its process is gone: killed, or crashed")


def test_how_it_has_ended(tmp_path: Path) -> None:
    held(tmp_path, ELSEWHERE, ended=True, what="the end")
    note_end(tmp_path, 1, 85, "SIGTERM")
    note_end(tmp_path, 2, EXIT_RUN_AGAIN, "the Hub, with password=geheim, is away")
    assert state(tmp_path) == ("stopped", "exit code 75: the Hub, with password=<hidden>, is away")
    assert read_status(tmp_path).preemptions == 1
    note_end(tmp_path, 3, 0)
    held(tmp_path, ELSEWHERE, ended=True)
    assert [end.exit_code for end in read_ends(tmp_path)] == [85, 75, 0]
    (tmp_path / FOLDER / "2.json").rename(tmp_path / FOLDER / "3.json")
    assert state(tmp_path) == ("finished", "")


def test_figures_checkpoint_and_counts(tmp_path: Path) -> None:
    held(tmp_path, ELSEWHERE, what="training")
    for batch in (4, 6):
        with zipfile.ZipFile(tmp_path / f"ep0-ba{batch}-rank0.pt", "w") as archive:
            archive.writestr("data.pkl", b"x" * 1000)
    (tmp_path / "ep0-ba9-rank0.pt").write_bytes(b"cut")
    starts = [{"launch": 1, "resumed_batch": 0}, {"launch": 2, "resumed_batch": 4, "steps_lost": 3}]
    (tmp_path / "launches.jsonl").write_text("".join(json.dumps(start) + "\n" for start in starts))
    (tmp_path / "failures.jsonl").write_text('{"batch": 7}\n')
    found = read_status(tmp_path)
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert (told["batch"], told["done_percent"], told["loader_wait_percent"]) == (7, 50.0, 25.0)
    assert (told["starts"], told["steps_lost"], told["crashes"]) == (2, 3, 1)
    assert told["grad_norm"] is None
    assert told["hub_backlog"] == 2
    assert (told["checkpoint"]["name"], told["checkpoint"]["whole"]) == ("ep0-ba9-rank0.pt", False)
    (tmp_path / "ep0-ba9-rank0.pt").unlink()
    newest = read_status(tmp_path).checkpoint
    assert newest is not None
    assert (newest.name, newest.whole, newest.bytes > 1000) == ("ep0-ba6-rank0.pt", True, True)
    table = as_lines(read_status(tmp_path))
    assert "pass 0, 56 of 112 samples (50.0 %), batch 7" in table
    assert "4.00 samples/s, 14 s left, 25 % of it for the loader" in table


def test_damage_is_one_line(tmp_path: Path) -> None:
    for name in ("launches.jsonl", "failures.jsonl", "ends.jsonl"):
        (tmp_path / name).write_text("no json\n")
        with pytest.raises(UserError, match=name):
            read_status(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "1.json").write_text('{"process": 5, "beat": "x", "doing": []}')
    assert read_status(tmp_path).launch == 1
    with pytest.raises(UserError, match="no such folder"):
        read_status(tmp_path / "nothing")


def test_the_command_starts_without_torch_and_keeps_control_characters_from_the_terminal(tmp_path: Path) -> None:
    held(tmp_path, ELSEWHERE, what="\x1b]0;title\x07 stopped")
    code = (
        "import sys; from theworld.commands.run_status import command; code = command();"
        "sys.exit(code or 9 * ('torch' in sys.modules or 'omegaconf' in sys.modules))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "]0;title" in shown.stdout
    assert not any(sign in shown.stdout for sign in ("\x1b", "\x07"))


def test_prometheus_reads_the_file(tmp_path: Path) -> None:
    told = {**FIGURES, "still": 1.0, "time": 5.0, "starts": 2, "steps_lost": 3, "loss": math.nan}
    write_metrics(tmp_path, told, 'my "run"\n\\')
    text = (tmp_path / "metrics.prom").read_text()
    assert text == as_text(told, 'my "run"\n\\')
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == len(METRICS) == text.count("# TYPE ")
    assert r'theworld_loader_wait_ratio{run="my \"run\"\n\\"} 0.25' in samples
    assert [line.rpartition(" ")[2] for line in samples if "loss{" in line or "norm{" in line] == ["NaN", "+Inf"]
    assert os.listdir(tmp_path) == ["metrics.prom"]
