"""Runs of the real command against the double of the Hub."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from hub_double import WRITE_TOKEN, HubDouble

from tests.helpers.tensorboard import logged

ROOT = Path(__file__).parents[2]
LONGEST = 240.0
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
    """A run over a data set, with a save folder and a cache of its own."""

    hub: HubDouble
    mds: Path
    folder: Path
    token: str | None = WRITE_TOKEN
    outputs: list[str] = field(default_factory=list)

    @property
    def save_folder(self) -> Path:
        return self.folder / "run"

    @property
    def environment(self) -> dict[str, str]:
        scratch = self.folder / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        more = {"TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}
        return {**self.hub.environment(self.folder / "home", self.token), **more}

    def command(self, *settings: str, ranks: int = 1) -> list[str]:
        start = [sys.executable] if ranks == 1 else [str(Path(sys.executable).with_name("composer")), "-n", str(ranks)]
        where = [f"convert.out={self.mds}", f"save_folder={self.save_folder}"]
        return [*start, "recipes/train.py", "yamls/smoke.yaml", *where, *SETTINGS, *settings]

    def train(self, *settings: str, ranks: int = 1, repo: str | None = REPO) -> int:
        """Train to the end and return the exit code."""
        hub = [f"hub.repo_id={repo}"] if repo else []
        return self.run(self.command(*hub, *settings, ranks=ranks))

    def run(self, command: list[str]) -> int:
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=LONGEST, check=False
        )
        self.outputs.append(done.stdout + done.stderr)
        return done.returncode

    def start(self, *settings: str) -> subprocess.Popen[str]:
        """Train in the background; :meth:`end` collects what it printed."""
        return subprocess.Popen(
            self.command(f"hub.repo_id={REPO}", *settings),
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def end(self, trainer: subprocess.Popen[str]) -> int:
        """Wait for its end and return the exit code."""
        try:
            output, _ = trainer.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(trainer.pid, signal.SIGKILL)
            raise
        self.outputs.append(output)
        return trainer.returncode

    def wait_for(self, trainer: subprocess.Popen[str], what: object) -> None:
        """Until ``what()`` is true; fails if the trainer ends before."""
        end = time.monotonic() + LONGEST
        while not what():  # type: ignore[operator]
            assert trainer.poll() is None, trainer.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.02)

    @property
    def output(self) -> str:
        return self.outputs[-1]

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
