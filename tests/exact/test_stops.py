"""Runs that are stopped, resumed, finished, or find another data set, under the real launcher."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT, Run, stop
from streaming import LocalDataset, MDSWriter

from tests.helpers.tensorboard import logged

pytestmark = [pytest.mark.slow, pytest.mark.dist]

SETTINGS = [
    "global_train_batch_size=4",
    "device_train_microbatch_size=1",
    "save_interval=2ba",
    "save_num_checkpoints_to_keep=2",
    "loggers.tensorboard.flush_interval=1",
]


def checkpoints(run: Run) -> list[str]:
    return sorted(path.name for path in run.save_folder.glob("ep*"))


def test_killed_among_debris_and_resumed_is_the_unbroken_run(many_samples: Path, folder: Path) -> None:
    unbroken = Run(many_samples, folder, SETTINGS, name="unbroken")
    unbroken.arrive(46)
    assert unbroken.train(2) == 0, unbroken.output

    run = Run(many_samples, folder, SETTINGS, name="killed")
    trainer = run.start(2)
    assert run.wait_for_batches(trainer, 5), run.output
    stop(trainer, signal.SIGKILL)
    whole = max(run.save_folder.glob("ep0-ba*"), key=lambda path: path.stat().st_mtime_ns)
    # What a crash of the node may leave: all are newer than the newest whole checkpoint.
    (run.save_folder / "ep0-ba60-rank0.pt").write_bytes(whole.read_bytes()[:-1000])
    (run.save_folder / "ep0-ba70-rank0.pt").touch()
    (run.save_folder / "ep0-ba80-rank0.pt").symlink_to("ep0-ba79-rank0.pt")
    (run.save_folder / "latest-rank0.pt").unlink()
    (run.save_folder / "latest-rank0.pt").symlink_to("ep0-ba70-rank0.pt")
    (run.save_folder / ".saving" / "ep0-ba6").mkdir(parents=True, exist_ok=True)
    (run.save_folder / ".saving" / "ep0-ba6" / "ep0-ba6-rank0.pt").write_bytes(b"half")
    assert run.train(2) == 0, run.output
    assert "ep0-ba60-rank0.pt: not a whole checkpoint" in run.output
    assert f"resumes from {whole}" in run.output

    losses = logged(run.save_folder)
    assert losses == logged(unbroken.save_folder)
    assert len(losses) == 12
    assert checkpoints(run) == ["ep0-ba12-rank0.pt", "ep0-ba80-rank0.pt", "ep1-ba12-rank0.pt"]
    assert (run.save_folder / "latest-rank0.pt").resolve().name == "ep1-ba12-rank0.pt"
    assert not (run.save_folder / ".saving").exists()

    before = run.lines()
    assert run.train(1) == 0, run.output
    assert "finished already: 1ep is done, 12 batches" in run.output
    assert run.lines() == before


def test_another_data_set_is_refused_and_a_new_pass_can_be_told(many_samples: Path, folder: Path) -> None:
    run = Run(many_samples, folder, SETTINGS)
    run.arrive(20)
    trainer = run.start(1)
    assert run.wait_for_batches(trainer, 3), run.output
    assert stop(trainer, signal.SIGTERM) != 0
    # The generation is made anew from other images, in the same place.
    shutil.rmtree(run.mds)
    shutil.rmtree(folder / "raw")
    run.arrive(24)
    assert run.train(1) == 2
    errors = [line for line in run.output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "gen-00000 has changed" in errors[0]
    assert "Traceback" not in run.output
    assert "load_path=CHECKPOINT load_weights_only=true and another save_folder" in errors[0]

    again = Run(many_samples, folder, SETTINGS, name="again")
    checkpoint = run.save_folder / "latest-rank0.pt"
    assert again.train(1, f"load_path={checkpoint}", "load_weights_only=true") == 0, again.output
    assert len({name for line in again.lines() for name in line["ids"]}) == 24


def test_pictures_that_cannot_be_decoded_are_counted_and_named(many_samples: Path, folder: Path) -> None:
    run = Run(many_samples, folder, [*SETTINGS, "train_loader.num_workers=2"])
    run.arrive(24)
    good, bad = folder / "good", set()
    run.mds.rename(good)
    samples = LocalDataset(str(good))
    columns = json.loads((good / "index.json").read_text())["shards"][0]
    with MDSWriter(
        out=str(run.mds), columns=dict(zip(columns["column_names"], columns["column_encodings"], strict=True))
    ) as writer:
        for number in range(len(samples)):
            sample = samples[number]
            if number % 3 == 0:
                sample["image"] = sample["image"][:200]
                bad.add(sample["id"])
            writer.write(sample)
    assert run.train(2) == 0, run.output
    assert len(bad) == 8
    for name in bad:
        assert f"sample {name} carries no loss: image cannot be decoded" in run.output
    assert logged(run.save_folder, "data/samples_without_loss")[6] == 8
    lines = run.lines()
    assert {name for line in lines for name in line.get("skipped", {})} == bad
    assert len({name for line in lines for name in line["ids"]}) == 16


def test_a_second_pass_has_everything_once_again_with_what_came_meanwhile(many_samples: Path, folder: Path) -> None:
    run = Run(many_samples, folder, [*SETTINGS, "max_duration=2ep"])
    run.arrive(22)
    trainer = run.start(1)
    # The ninth batch, the third of the second pass, comes after the checkpoint of the eighth.
    assert run.wait_for_batches(trainer, 9), run.output
    stop(trainer, signal.SIGKILL)
    run.arrive(30)
    assert run.train(2) == 0, run.output
    audit = [sys.executable, "recipes/audit.py", str(run.save_folder), str(run.mds)]
    done = subprocess.run(audit, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout
    assert "pass 0 (finished, 6 batches)" in done.stdout
    assert "pass 1 (finished, 8 batches)" in done.stdout
    assert done.stdout.count("gen-00001: 8 seen, 0 not") == 1
    by_pass = [
        [name for line in run.lines() if line["batch"] in batches for name in line["ids"]]
        for batches in (
            range(6),
            range(6, 14),
        )
    ]
    assert by_pass[0][:22] != by_pass[1][:22], "another order"


def test_the_schedule_runs_over_the_samples_that_the_pass_is_now_to_have(many_samples: Path, folder: Path) -> None:
    run = Run(many_samples, folder, [*SETTINGS, "scheduler.t_warmup=1ba"])
    run.arrive(16)
    trainer = run.start(1)
    assert run.wait_for_batches(trainer, 3), run.output
    assert "set train_loader.expected_samples" in run.output
    stop(trainer, signal.SIGKILL)
    run.arrive(28)
    assert run.train(1) == 0, run.output
    rates = logged(run.save_folder, "lr-DecoupledAdamW/group0")
    assert sorted(rates) == [1, 2, 3, 4, 5, 6, 7]
    assert "runs over 28 samples of the pass, before over 16; " in run.output
    starts = (run.save_folder / "launches.jsonl").read_text().splitlines()
    resumed = json.loads(starts[-1])["resumed_batch"]
    for step, rate in rates.items():
        total = 16 if step <= resumed else 28
        done = min((step - 2) / (total / 4 - 1), 1.0)
        factor = 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2 if step > 1 else 0.0
        assert rate == pytest.approx(3e-3 * factor, rel=1e-4), f"step {step}"
