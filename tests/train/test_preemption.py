"""Signals to a run under the real launcher: it saves at the batch it is at, says 85, and loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import SMOKE_YAML
from tests.helpers.launcher import composer, ended, start
from tests.slurm.cluster import wait_until
from theworld.config.load import load_config
from theworld.errors import UserError
from theworld.signals import END_VARIABLE, StopRequest


class Launch:
    """One start of a run in a process group of its own."""

    def __init__(self, raw: Path, mds: Path, folder: Path, *overrides: str, ranks: int = 2) -> None:
        self.folder = folder / "run"
        settings = [
            SMOKE_YAML,
            f"convert.json={raw / 'openspatial.json'}",
            f"convert.images={raw / 'images'}",
            f"convert.out={mds}",
            f"save_folder={self.folder}",
            f"train_loader.dataset.local={folder / 'cache'}",
            "global_train_batch_size=2",
            "device_train_microbatch_size=1",
            "save_interval=100ba",
            *overrides,
        ]
        self.log = folder / "log"
        self.process = start(composer(ranks, *settings), self.log)

    def batches(self) -> int:
        path = self.folder / "ledger" / "rank0.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def wait_for_batches(self, count: int) -> None:
        def there() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.batches() >= count

        wait_until(there, f"{count} batches")

    def ranks(self) -> list[psutil.Process]:
        """The trainers, without launcher and loader workers."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]

    def members(self) -> list[psutil.Process]:
        """Ranks and their loader workers."""
        return [process for rank in self.ranks() for process in (rank, *rank.children(recursive=True))]

    def wait(self) -> int:
        return ended(self.process)


@pytest.fixture
def launches() -> Iterator[list[Launch]]:
    started: list[Launch] = []
    yield started
    for launch in started:
        if launch.process.poll() is None:
            os.killpg(launch.process.pid, signal.SIGKILL)


def finish_and_audit(raw: Path, mds: Path, tmp_path: Path, launches: list[Launch], *overrides: str) -> str:
    """The same command again, to the end; every id once among the latest lines of each batch. Returns the log."""
    again = Launch(raw, mds, tmp_path, *overrides)
    launches.append(again)
    assert again.wait() == 0, again.log.read_text()
    lines = [
        json.loads(line)
        for path in (again.folder / "ledger").glob("rank*.jsonl")
        for line in path.read_text().splitlines()
    ]
    latest = {line["batch"]: line["launch"] for line in sorted(lines, key=lambda line: line["launch"])}
    seen = [name for line in lines if line["launch"] == latest[line["batch"]] for name in line["ids"]]
    names = [entry["filename"] for entry in json.loads((raw / "openspatial.json").read_text())]
    assert sorted(seen) == sorted(names)
    return again.log.read_text()


@pytest.mark.slow
@pytest.mark.dist
def test_repeated_signals_to_every_process_lose_no_step(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, launches: list[Launch]
) -> None:
    """What preemption does: TERM to ranks and loader workers alike, more than once."""
    launch = Launch(raw_sample, mds_sample, tmp_path)
    launches.append(launch)
    launch.wait_for_batches(3)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
        for process in launch.members():
            process.send_signal(number)
    assert launch.wait() == 85, launch.log.read_text()
    assert list(launch.folder.glob(f"ep0-ba{launch.batches()}-rank0.pt"))
    assert "; 0 steps were lost" in finish_and_audit(raw_sample, mds_sample, tmp_path, launches)


@pytest.mark.slow
@pytest.mark.dist
def test_signal_to_one_rank_before_the_first_batch(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, launches: list[Launch]
) -> None:
    launch = Launch(raw_sample, mds_sample, tmp_path)
    launches.append(launch)
    # The handlers stand before the heavy imports; the environment of a rank says when it runs.
    wait_until(lambda: len(launch.ranks()) == 2 and "torch" in mapped(launch.ranks()[1]), "two ranks that import torch")
    launch.ranks()[1].send_signal(signal.SIGUSR1)
    assert launch.wait() == 85, launch.log.read_text()
    assert launch.batches() == 0
    finish_and_audit(raw_sample, mds_sample, tmp_path, launches)


@pytest.mark.slow
@pytest.mark.dist
def test_signal_during_evaluation(raw_sample: Path, mds_sample: Path, tmp_path: Path, launches: list[Launch]) -> None:
    """An evaluation that would last long is left; the batch before it is saved."""
    evaluation = [
        f"eval_loader.dataset.remote={mds_sample}",
        f"eval_loader.dataset.local={tmp_path / 'cache-eval'}",
        "eval_loader.num_workers=0",
        "eval_interval=4ba",
        "train_loader.num_workers=0",
    ]
    launch = Launch(raw_sample, mds_sample, tmp_path, *evaluation)
    launches.append(launch)
    launch.wait_for_batches(4)
    for rank in launch.ranks():
        rank.send_signal(signal.SIGTERM)
    assert launch.wait() == 85, launch.log.read_text()
    assert list(launch.folder.glob(f"ep0-ba{launch.batches()}-rank0.pt"))
    assert "; 0 steps were lost" in finish_and_audit(raw_sample, mds_sample, tmp_path, launches)


def mapped(process: psutil.Process) -> str:
    """Names of the libraries that a process has loaded."""
    return " ".join(entry.path for entry in process.memory_maps())


HELD_BACK = """
import os, signal, sys
from theworld.signals import StopRequest

stop = StopRequest(["SIGUSR2"])
stop.install()
with stop.held_back():
    # As importing composer does, while a signal comes.
    signal.signal(signal.SIGUSR2, lambda *_: sys.exit(3))
    os.kill(os.getpid(), signal.SIGUSR2)
    assert not stop.wanted
assert stop.wanted
print(stop.reason)
"""


def test_handlers_survive_an_import_that_sets_its_own() -> None:
    """In a process of its own, as at the start of a rank: threads that are there already would take the signal."""
    done = subprocess.run([sys.executable, "-c", HELD_BACK], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "SIGUSR2\n"


def test_the_jobs_end_is_a_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = StopRequest()
    stop.read_job_end(30.0)
    assert not stop.wanted
    monkeypatch.setenv(END_VARIABLE, str(time.time() + 30.2))
    stop.read_job_end(30.0)
    wait_until(lambda: stop.wanted, "the last 30 seconds have begun", patience=10)
    assert "time" in str(stop.reason)


def test_a_job_too_short_to_train_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(END_VARIABLE, str(time.time() + 20))
    with pytest.raises(UserError, match=r"preemption\.grace"):
        StopRequest().read_job_end(30.0)


@pytest.mark.parametrize("name", ["SIGNONE", "SIGKILL", "term"])
def test_unknown_signal_names_the_key(name: str) -> None:
    with pytest.raises(UserError, match=r"preemption\.signals"):
        StopRequest([name])


def test_the_same_run_in_the_loggers_at_each_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from theworld.train.builders import logger_settings

    def settings(folder: Path, *overrides: str) -> dict[str, Any]:
        return logger_settings(load_config([SMOKE_YAML, "loggers.wandb.project=spatial", *overrides]), folder)

    first, again = settings(tmp_path), settings(tmp_path)
    assert first == again
    assert first["wandb"]["init_kwargs"]["resume"] == "allow"
    assert first["wandb"]["project"] == "spatial"
    assert first["tensorboard"]["log_dir"] == str(tmp_path / "tensorboard")
    assert settings(tmp_path / "other")["wandb"]["init_kwargs"]["id"] != first["wandb"]["init_kwargs"]["id"]
    assert settings(tmp_path, "loggers.wandb.init_kwargs.id=mine")["wandb"]["init_kwargs"]["id"] == "mine"

    def mlflow_run(folder: Path) -> str:
        """The tag by which Composer's logger, with ``resume``, looks for the run to go on with."""
        monkeypatch.delenv("RUN_NAME", raising=False)
        store = {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}"}
        assert settings(folder, "loggers.mlflow={}")["mlflow"] == {"run_name": "smoke", "resume": True, **store}
        return os.environ["RUN_NAME"]

    assert mlflow_run(tmp_path) == mlflow_run(tmp_path) != mlflow_run(tmp_path / "other")
    assert settings(tmp_path, "loggers.mlflow.resume=false")["mlflow"]["resume"] is False
    assert settings(tmp_path, "loggers.mlflow.tracking_uri=http://here")["mlflow"]["tracking_uri"] == "http://here"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    assert "tracking_uri" not in settings(tmp_path, "loggers.mlflow={}")["mlflow"]
