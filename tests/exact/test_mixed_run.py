"""A run over two data sets, one of which grows, killed and stopped on the way, and its audit.

The ledger is counted here by code that shares nothing with the trainer's or the audit's.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launching import LONGEST, ROOT, SMOKE, Run, stop

from theworld.synthetic import generate

pytestmark = [pytest.mark.slow, pytest.mark.dist]

AT_FIRST, AT_LAST, OTHERS = 24, 32, 9
SETTINGS = [
    "train_loader.dataset.remote=null",
    "global_train_batch_size=4",
    "device_train_microbatch_size=2",
    "save_interval=2ba",
    "save_num_checkpoints_to_keep=-1",
]


@pytest.fixture(scope="module")
def mixed(many_samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A pass of one and a half copies of what grows and two of the others: 48 and 18; then the next one."""
    folder = tmp_path_factory.mktemp("run")
    generate(folder / "others", samples=OTHERS, seed=11, size=160, workers=1)
    run = Run(many_samples, folder)
    run.settings = [
        *SETTINGS,
        f"train_loader.datasets=[{{name: grows, remote: {run.mds}, repeat: 1.5}}, "
        f"{{name: others, remote: {folder}/others/mds, repeat: 2}}]",
        f"eval_loader.datasets=[{{name: one, remote: {run.mds}}}, {{name: two, local: {folder}/others/mds}}]",
        "eval_subset_num_batches=1",
    ]
    raw = [f"convert.json={folder}/others/openspatial.json", f"convert.images={folder}/others/images"]
    command = [sys.executable, "convert/to_mds.py", SMOKE, f"convert.out={folder}/others/mds", *raw]
    subprocess.run(command, cwd=ROOT, env=run.environment, check=True, capture_output=True, timeout=LONGEST)
    run.arrive(AT_FIRST)
    trainer = run.start(2)
    assert run.wait_for_batches(trainer, 5), run.output
    stop(trainer, signal.SIGKILL)
    trainer = run.start(1)
    assert run.wait_for_batches(trainer, 3), run.output
    assert stop(trainer, signal.SIGTERM) == 85, run.output
    run.arrive(AT_LAST)
    assert run.train(2, "max_duration=2ep") == 0, run.output
    return run


def surviving(run: Run) -> list[dict[str, Any]]:
    """The ledger's lines, of a batch that was trained again the last launch's."""
    last: dict[int, int] = {}
    for line in run.lines():
        last[line["batch"]] = max(line["launch"], last.get(line["batch"], 0))
    return [line for line in run.lines() if line["launch"] == last[line["batch"]]]


def audit(save_folder: Path) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, "recipes/audit.py", str(save_folder), "--json", str(save_folder / "audit.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONGEST)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads((save_folder / "audit.json").read_text()), done.stdout


def test_every_copy_once_through_kill_stop_and_growth(mixed: Run) -> None:
    lines = surviving(mixed)
    first = sum(one["batches"] for one in map(json.loads, passes(mixed)[:1]))
    for lines_of_pass in (
        [line for line in lines if line["batch"] < first],
        [line for line in lines if line["batch"] >= first],
    ):
        times = Counter(name for line in lines_of_pass for name in line["ids"])
        grows = [count for name, count in times.items() if name.startswith("grows/")]
        others = [count for name, count in times.items() if name.startswith("others/")]
        assert sorted(grows) == [1] * (AT_LAST // 2) + [2] * (AT_LAST // 2)
        assert others == [2] * OTHERS
    both = Counter(name for line in lines for name in line["ids"] if name.startswith("grows/"))
    assert len(both) == AT_LAST


def passes(run: Run) -> list[str]:
    return (run.save_folder / "ledger" / "passes.jsonl").read_text().splitlines()


def test_the_audit_finds_the_data_sets_and_says_yes(mixed: Run) -> None:
    code, found, printed = audit(mixed.save_folder)
    assert code == 0, printed
    assert (found["exactly_once"], found["at_most_once"], found["complete"]) == ("yes", "yes", "yes")
    assert found["complete_json"] == "not checked"
    assert found["sources"] == {
        "grows": {"samples": AT_LAST, "due": 48, "seen": 48},
        "others": {"samples": OTHERS, "due": 18, "seen": 18},
    }
    assert "grows: 32 samples, due 48 times, seen 48 times" in printed
    assert [len(one["per_generation"]) for one in found["passes"]] == [3, 3]


def test_evaluations_go_by_data_set(mixed: Run) -> None:
    starts = [json.loads(line) for line in (mixed.save_folder / "launches.jsonl").read_text().splitlines()]
    assert [one["series"] for one in starts[0]["evals"].values()] == ["eval-one", "eval-two"]
    assert starts[-1]["evals"]["one"]["series"] == f"eval-one-{AT_LAST}", "what has grown is another series"
    assert "Eval metrics/eval-two/AnswerLoss" in mixed.output


def with_another(lines: list[dict[str, Any]]) -> tuple[list[str], int]:
    """The ids of a line, and the place of one of the others among them."""
    return next(
        (line["ids"], place) for line in lines for place, name in enumerate(line["ids"]) if name.startswith("others/")
    )


def drop_a_copy(lines: list[dict[str, Any]]) -> None:
    ids, place = with_another(lines)
    ids.pop(place)


def call_it_another(lines: list[dict[str, Any]]) -> None:
    ids, place = with_another(lines)
    ids[place] = next(name for other in lines for name in other["ids"] if name.startswith("grows/"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop_a_copy, "trained samples, the ledger"),
        (call_it_another, "the trained samples of the ledger are not those that the checkpoint has counted"),
    ],
)
def test_a_changed_ledger_is_found(
    mixed: Run, tmp_path: Path, change: Callable[[list[dict[str, Any]]], None], said: str
) -> None:
    shutil.copytree(mixed.save_folder, tmp_path / "run", symlinks=True)
    path = tmp_path / "run" / "ledger" / "rank0.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    newest = max(line["launch"] for line in lines)
    change([line for line in lines if line["launch"] == newest])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, found, printed = audit(tmp_path / "run")
    assert code == 1, printed
    assert said in printed
    assert found["exactly_once"] == "no"
    assert "never seen          1" in printed


def test_a_data_set_that_is_not_named_any_more_leaves_it_open(mixed: Run, tmp_path: Path) -> None:
    shutil.copytree(mixed.save_folder, tmp_path / "run", symlinks=True)
    path = tmp_path / "run" / "config.yaml"
    text = path.read_text()
    assert "name: others" in text
    path.write_text(text.replace("name: others", "name: another"))
    code, found, printed = audit(tmp_path / "run")
    assert (code, found["exactly_once"]) == (75, "not checked"), printed
    assert "it had samples of others, which config.yaml does not name" in printed
