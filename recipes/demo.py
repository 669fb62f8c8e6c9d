"""The whole road on the built-in sample: python recipes/demo.py [FOLDER]

Half of the download is there: convert, train. More arrives: convert again. The trainer is killed in the middle, started
again with the same command, takes up what is new and finishes. At the end the audit, a page of the samples, one of the
run, and a short table. The folder (default: demo) is made anew.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from theworld import cli
from theworld.checkpoint.on_disk import newest_whole_checkpoint
from theworld.errors import UserError
from theworld.pages.run_curves import read_curves

SAMPLES = 96
BATCHES_BEFORE_KILL = 6
ROOT = Path(__file__).resolve().parents[1]


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    folder = Path(argv[0] if argv else "demo")
    make_anew(folder)
    run, mds = folder / "run", folder / "mds"
    settings = [
        "yamls/smoke.yaml",
        f"convert.json={folder.resolve() / 'openspatial.json'}",
        f"convert.images={folder.resolve() / 'images'}",
        f"convert.out={mds.resolve()}",
        f"save_folder={run.resolve()}",
    ]
    python = [sys.executable]
    train = [str(Path(sys.executable).with_name("composer")), "recipes/train.py", *settings]
    sample = [*python, "convert/sample.py", str(folder.resolve()), "--samples", str(SAMPLES)]

    step("Sample data, 60 % of the images downloaded", [*sample, "--available", "0.6"])
    step("Convert what is there", [*python, "convert/to_mds.py", *settings])
    print_step("Train, until it is killed in the middle", train)
    begun = train_and_kill(train, run, BATCHES_BEFORE_KILL)
    step("The download goes on", sample)
    step("Convert what is new", [*python, "convert/to_mds.py", *settings])
    step("Train: the same command again", train)
    audit = [*python, "recipes/audit.py", str(run.resolve()), str(mds.resolve())]
    step("Audit: every sample exactly once?", audit)
    page = (folder / "preview.html").resolve()
    preview = [*python, "convert/preview.py", str(mds.resolve()), "--yaml", settings[0], "--html", str(page)]
    step("A page of the samples", preview)
    print_table(run, begun)
    print(f"\nlook at the samples  {page.as_uri()}\nand at the run       {(run / 'report.html').resolve().as_uri()}")
    return 0


def make_anew(folder: Path) -> None:
    """Empty the folder if it is an earlier demo's; never another one."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "openspatial.json").exists():
            raise UserError(f"{folder}: is not empty and no earlier demo's; name another folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)


def print_step(title: str, command: list[str]) -> None:
    shown = " ".join(os.path.relpath(word, ROOT) if word.startswith("/") else word for word in command)
    print(f"\n=== {title}\n$ {shown}", flush=True)


def step(title: str, command: list[str]) -> None:
    """Run one command of the road in the foreground."""
    print_step(title, command)
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        raise UserError(f"{title}: exit code {done.returncode}; what went wrong stands above")


def train_and_kill(command: list[str], run: Path, end: int) -> int:
    """Train until so many batches are done, then ``kill -9`` launcher and ranks.

    Returns:
        The number of batches that were trained on.
    """
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as trainer:
        while count_batches(run) < end:
            if trainer.poll() is not None:
                raise UserError(f"the trainer ended by itself, exit code {trainer.returncode}")
            time.sleep(0.05)
        os.killpg(trainer.pid, signal.SIGKILL)
    batches = count_batches(run)
    print(f"\nkill -9 after {batches} batches")
    return batches


def count_batches(run: Path) -> int:
    """Batches in rank 0's ledger."""
    ledger = run / "ledger" / "rank0.jsonl"
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


def print_table(run: Path, begun: int) -> None:
    losses = [loss for _, loss in read_curves(run).points("loss/train/total")]
    attempts = [json.loads(line) for line in (run / "launches.jsonl").read_text().splitlines()]
    resumed = attempts[-1]["resumed_batch"]
    last = newest_whole_checkpoint(run)
    assert last is not None
    rows = {
        "samples at the first start, at the second": " ".join(str(attempt["samples"]) for attempt in attempts),
        "steps before the kill": f"{begun}, of which {resumed} saved",
        "steps after it": f"{last.batch - resumed}",
        "loss at the start": f"{losses[0]:.3f}",
        "loss at the end": f"{losses[-1]:.3f}",
        "checkpoint": os.path.relpath(last.path, Path.cwd()),
    }
    print()
    for name, value in rows.items():
        print(f"{name:<42} {value}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
