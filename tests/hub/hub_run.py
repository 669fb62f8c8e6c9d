"""Runs of the real command against the double of the Hub."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hub_double import WRITE_TOKEN, HubDouble

from tests.helpers.launcher import LONGEST, Process, composer, ended, start
from tests.helpers.tensorboard import logged

REPO = "someone/spatial"
SETTINGS = (
    "global_train_batch_size=4",
    "device_train_microbatch_size=2",
    "train_loader.num_workers=0",
    "model.freeze.language=true",
    "save_interval=2ba",
    "loggers.tensorboard.flush_interval=1",
)
"""26 samples: batches 1 to 7, saved after 2, 4, 6 and at the end."""


@dataclass
class HubRun:
    """A run over a data set, with a save folder and a cache of its own.

    Attributes:
        home: where the Hub's client keeps what it fetched.
    """

    hub: HubDouble
    mds: Path
    folder: Path
    home: Path
    token: str | None = WRITE_TOKEN
    logs: list[Path] = field(default_factory=list)

    @property
    def save_folder(self) -> Path:
        return self.folder / "run"

    @property
    def environment(self) -> dict[str, str]:
        scratch = self.folder / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        more = {"TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}
        return {**self.hub.environment(self.home, self.token), **more}

    def command(self, *settings: str, ranks: int = 1) -> list[str]:
        where = [f"convert.out={self.mds}", f"save_folder={self.save_folder}"]
        trained = ["yamls/smoke.yaml", "report=false", *where, *SETTINGS, *settings]
        return composer(ranks, *trained) if ranks > 1 else [sys.executable, "recipes/train.py", *trained]

    def train(self, *settings: str, ranks: int = 1, repo: str | None = REPO) -> int:
        """Train to the end and return the exit code."""
        hub = [f"hub.repo_id={repo}"] if repo else []
        return self.run(self.command(*hub, *settings, ranks=ranks))

    def run(self, command: list[str]) -> int:
        return ended(self.begin(command))

    def start(self, *settings: str) -> Process:
        """Train in the background."""
        return self.begin(self.command(f"hub.repo_id={REPO}", *settings))

    def begin(self, command: list[str]) -> Process:
        """Start a command."""
        self.logs.append(self.folder / f"start-{len(self.logs)}.log")
        return start(command, self.logs[-1], self.environment)

    def wait_for(self, trainer: Process, what: Callable[[], object]) -> None:
        """Until ``what()`` is true; fails if the trainer ends before."""
        end = time.monotonic() + LONGEST
        while not what():
            assert trainer.poll() is None, self.output
            assert time.monotonic() < end
            time.sleep(0.02)

    @property
    def output(self) -> str:
        """What the newest start printed."""
        return self.logs[-1].read_text(errors="replace")

    @property
    def errors(self) -> list[str]:
        """Lines for the user that end a run."""
        return [line for line in self.output.splitlines() if line.startswith("error:")]

    def titles(self) -> list[str]:
        """Titles of the repo's commits, the first empty one left out."""
        return [commit.title for commit in self.hub.repos[REPO].commits[1:]]

    def forget(self) -> None:
        """Lose the save folder, as a wiped scratch does."""
        shutil.rmtree(self.save_folder)

    def losses(self) -> dict[int, float]:
        """Training loss by batch, over all starts whose TensorBoard files are left."""
        return logged(self.save_folder)

    def launches(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.save_folder / "launches.jsonl").read_text().splitlines()]


def holds(folder: Path, secret: str) -> list[Path]:
    """Files below a folder that have this text in them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if secret.encode() in path.read_bytes()]
