"""The audit of runs whose checkpoints carry no proof: faults are found, and nothing is called proven."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Lines = list[dict[str, Any]]

GENERATIONS = {"gen-00000": ["a", "b", "c", "d", "e", "f"], "gen-00001": ["g", "h"]}


def good_run() -> dict[str, Lines]:
    """Two ranks, killed after batch 1, resumed after batch 0 on one rank, then a finished pass."""
    return {
        "rank0": [
            {"launch": 1, "batch": 0, "ids": ["a"]},
            {"launch": 1, "batch": 1, "ids": ["c"]},
            {"launch": 2, "batch": 1, "ids": ["c", "d"]},
            {"launch": 2, "batch": 2, "ids": ["e", "g"]},
            {"launch": 2, "batch": 3, "ids": ["f"], "skipped": {"h": "image cannot be decoded"}},
        ],
        "rank1": [{"launch": 1, "batch": 0, "ids": ["b"]}],
        "passes": [
            {
                "launch": 2,
                "pass": 0,
                "batches": 4,
                "generations": [{"name": name} for name in GENERATIONS],
            }
        ],
    }


def audit(folder: Path, ledger: dict[str, Lines]) -> tuple[int, str]:
    """Write the run and its data set's list of ids, and audit them by the real command."""
    (folder / "run" / "ledger").mkdir(parents=True)
    for name, lines in ledger.items():
        (folder / "run" / "ledger" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    launches = [{"launch": 1, "ranks": 2}, {"launch": 2, "ranks": 1}]
    (folder / "run" / "launches.jsonl").write_text("".join(json.dumps(line) + "\n" for line in launches))
    for name, ids in GENERATIONS.items():
        (folder / "mds" / name).mkdir(parents=True)
        (folder / "mds" / name / "ids.txt").write_text("".join(f"{one}\n" for one in ids))
        shard = {"samples": len(ids), "raw_data": {"basename": "shard.00000.mds", "bytes": 1, "hashes": {}}}
        (folder / "mds" / name / "index.json").write_text(json.dumps({"version": 2, "shards": [shard]}))
    manifest = {
        "generations": [{"name": name, "samples": len(ids), "fingerprint": "f"} for name, ids in GENERATIONS.items()]
    }
    (folder / "mds" / "manifest.json").write_text(json.dumps(manifest))
    command = [sys.executable, "recipes/audit.py", str(folder / "run"), str(folder / "mds")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_a_promise_that_seems_kept_is_not_proven(tmp_path: Path) -> None:
    code, printed = audit(tmp_path, good_run())
    assert code == 75, printed
    assert "at most once: not checked" in printed
    assert "exactly once: not checked" in printed
    assert "which attempt's batches count is guessed, not checked" in printed
    assert "seen once           8" in printed
    assert "gen-00001: 2 seen, 0 not" in printed
    assert "no loss: h: image cannot be decoded" in printed
    assert "1 batches trained again" in printed


def repeat_an_id(ledger: dict[str, Lines]) -> None:
    ledger["rank0"][3]["ids"] = ["e", "a"]


def leave_out_an_id(ledger: dict[str, Lines]) -> None:
    ledger["rank0"][3]["ids"] = ["e"]


def leave_out_a_line(ledger: dict[str, Lines]) -> None:
    del ledger["rank1"][0]


def leave_out_a_batch(ledger: dict[str, Lines]) -> None:
    del ledger["rank0"][3]


def add_an_unknown_id(ledger: dict[str, Lines]) -> None:
    ledger["rank0"][3]["ids"].append("zzz")


def write_a_line_twice(ledger: dict[str, Lines]) -> None:
    ledger["rank0"].append({"launch": 2, "batch": 3, "ids": []})


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (repeat_an_id, "repeated            1  a"),
        (leave_out_an_id, "never seen          1  g"),
        (leave_out_a_line, "batch 0: 0 lines of rank 1"),
        (leave_out_a_batch, "batch 2: 0 lines of rank 0"),
        (add_an_unknown_id, "not in the data set         1  zzz"),
        (write_a_line_twice, "batch 3: 2 lines of rank 0"),
    ],
)
def test_a_planted_fault_is_found(tmp_path: Path, plant: Callable[[dict[str, Lines]], None], named: str) -> None:
    ledger = good_run()
    plant(ledger)
    code, printed = audit(tmp_path, ledger)
    assert code == 1, printed
    assert named in printed
    assert "exactly once: NO" in printed


def test_an_unfinished_pass_is_no_broken_promise(tmp_path: Path) -> None:
    """Killed while rank 1 had yet to write its line of the last batch, and rank 0 was in the middle of one."""
    ledger = good_run()
    del ledger["passes"]
    ledger["rank0"] = ledger["rank0"][:2]
    code, printed = audit(tmp_path, ledger)
    assert code == 75, printed
    assert "not finished, 1 batches" in printed


def test_an_end_of_pass_that_a_resume_undid_does_not_count(tmp_path: Path) -> None:
    """Killed after the end of the pass was written down but before it was saved; then the data set had grown."""
    ledger = good_run()
    earlier = {"launch": 1, "pass": 0, "batches": 2, "generations": [{"name": "gen-00000"}]}
    ledger["passes"] = [earlier]
    ledger["rank0"] = ledger["rank0"][:3]
    code, printed = audit(tmp_path, ledger)
    assert code == 75, printed
    assert "not finished, 2 batches" in printed


@pytest.mark.parametrize("reached", ["the first batch", "the model"])
def test_a_crash_before_the_first_batch_is_nothing_trained_yet(tmp_path: Path, reached: str) -> None:
    """Ranks make their files of the ledger when the first batch is near; an attempt is written down before that."""
    code, printed = audit(tmp_path, {"rank0": [], "rank1": []} if reached == "the first batch" else {})
    assert code == 75, printed
    assert "nothing trained yet" in printed
    assert "carried loss" not in printed
    assert "guessed" not in printed


def test_a_ledger_that_was_lost_is_not_nothing_trained_yet(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ep0-ba4-rank0.pt").touch()
    code, printed = audit(tmp_path, {})
    assert code == 2, printed
    assert "no ledger/rank*.jsonl" in printed


def test_no_ledger_is_bad_input(tmp_path: Path) -> None:
    command = [sys.executable, "recipes/audit.py", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "ledger" in done.stderr
