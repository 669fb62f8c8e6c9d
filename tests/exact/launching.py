"""Runs of the real command under the real launcher, to be stopped in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.helpers.launcher import LONGEST, ROOT, Process, composer, ended, start

SMOKE = "yamls/smoke.yaml"


@dataclass
class Run:
    """A data set and the save folder of a run over it.

    Attributes:
        source: folder with all images and ``openspatial.json``.
        folder: the test's own.
        settings: ``key=value`` of every launch.
    """

    source: Path
    folder: Path
    settings: Sequence[str] = ()
    name: str = "run"
    logs: list[Path] = field(default_factory=list)

    @property
    def save_folder(self) -> Path:
        return self.folder / self.name

    @property
    def mds(self) -> Path:
        return self.folder / "mds"

    @property
    def environment(self) -> dict[str, str]:
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        return {**os.environ, "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def arrive(self, images: int) -> None:
        """Let the first so many images be there, and convert."""
        raw = self.folder / "raw"
        (raw / "images").mkdir(parents=True, exist_ok=True)
        if not (raw / "openspatial.json").exists():
            shutil.copyfile(self.source / "openspatial.json", raw / "openspatial.json")
        for image in sorted((self.source / "images").iterdir())[:images]:
            if not (raw / "images" / image.name).exists():
                os.link(image, raw / "images" / image.name)
        settings = [f"convert.json={raw}/openspatial.json", f"convert.images={raw}/images", "convert.size_limit=100kb"]
        command = [sys.executable, "convert/to_mds.py", SMOKE, f"convert.out={self.mds}", *settings]
        subprocess.run(command, cwd=ROOT, env=self.environment, check=True, capture_output=True, timeout=LONGEST)

    def arrived(self) -> set[str]:
        """Ids whose image is there."""
        return {path.stem for path in (self.folder / "raw" / "images").iterdir()}

    def start(self, ranks: int, *settings: str, environment: dict[str, str] | None = None) -> Process:
        """The trainer in a session of its own; its output goes to a file in ``logs``."""
        where = [f"convert.out={self.mds}", f"save_folder={self.save_folder}"]
        self.logs.append(self.folder / f"{self.name}-{len(self.logs)}.log")
        command = composer(ranks, SMOKE, *where, *self.settings, *settings)
        return start(command, self.logs[-1], {**self.environment, **(environment or {})})

    def train(self, ranks: int, *settings: str) -> int:
        """Train to the end and return the exit code."""
        return ended(self.start(ranks, *settings))

    @property
    def output(self) -> str:
        """What the newest launch printed."""
        return self.logs[-1].read_text(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """All lines of the ledger, those of batches that were trained again included."""
        found = []
        for path in sorted((self.save_folder / "ledger").glob("rank*.jsonl")):
            found += [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
        return found

    def wait_for_batches(self, trainer: Process, count: int) -> bool:
        """Wait until rank 0 has written ``count`` more lines than now; False if the trainer ended by itself before."""
        path = self.save_folder / "ledger" / "rank0.jsonl"

        def written() -> int:
            return path.read_bytes().count(b"\n") if path.exists() else 0

        goal = written() + count
        end = time.monotonic() + LONGEST
        while written() < goal:
            if trainer.poll() is not None:
                return False
            assert time.monotonic() < end, self.output
            time.sleep(0.02)
        return True


def ranks_of(trainer: Process) -> list[psutil.Process]:
    """The ranks, without launcher and loader workers."""
    children = psutil.Process(trainer.pid).children()
    ranks = [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
    return sorted(ranks, key=lambda rank: rank.pid)


def stop(trainer: Process, number: signal.Signals) -> int:
    """Send a signal: SIGKILL to launcher, ranks and workers at once, another one to the launcher, which ends its ranks.

    Returns:
        the launcher's exit code, when none of its ranks lives any more.
    """
    ranks = psutil.Process(trainer.pid).children()
    if number == signal.SIGKILL:
        os.killpg(trainer.pid, number)
    else:
        trainer.send_signal(number)
    code = trainer.wait(LONGEST)
    # The kernel takes its time with the memory of a killed one; the launcher waits for those that it ends itself.
    _, alive = psutil.wait_procs(ranks, timeout=LONGEST if number == signal.SIGKILL else 0)
    assert not alive, "a rank outlives its launcher"
    return code
