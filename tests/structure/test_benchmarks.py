"""The benchmarks still run: each at a size that takes seconds, whose figures mean nothing.

Rows that need a network or an environment of their own are left out, and say so.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.loader_batches import ByTheWorld, ByTransformers, compare, one_sample, processor_of_real_size
from benchmarks.loader_rivals import raw_samples
from benchmarks.run_all import TITLE, on_top, without_places
from theworld.cli import OF_LAUNCHERS
from theworld.synthetic import generate

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "loader": ["--samples", "4", "--batch", "2", "--rounds", "1", "--no-rivals"],
    "scale": ["--samples", "1000", "--generations", "2", "--ranks", "2", "--passes", "2"],
}


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short name: sockets of loaders' workers lie below it, whose path has 107 bytes at most."""
    return tmp_path_factory.mktemp("b")


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_prints_its_table(name: str, short: Path) -> None:
    settings = {"PYTHONPATH": str(ROOT), "TMPDIR": str(short), "OMP_NUM_THREADS": "1"}
    alone = {key: value for key, value in os.environ.items() if key not in OF_LAUNCHERS}
    command = [sys.executable, "-m", f"benchmarks.{name}", *SMALL[name]]
    done = subprocess.run(
        command, cwd=ROOT, env={**alone, **settings}, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\|(.+)\|$", done.stdout, re.M)
    assert len(rows) >= 3, done.stdout
    assert re.search(r"\d", rows[2])
    assert ("left out by --no-rivals" in done.stdout) == ("--no-rivals" in SMALL[name])


@pytest.mark.slow
def test_make_bench_runs_each_and_keeps_what_was_measured_before(short: Path) -> None:
    results = short / "RESULTS.md"
    results.write_text(on_top(TITLE, "## 2020-01-01\n\nan older machine"))
    names = ["step", "packing", "convert", "download", "resume"]
    alone = {key: value for key, value in os.environ.items() if key not in OF_LAUNCHERS}
    settings = {**alone, "PYTHONPATH": str(ROOT), "TMPDIR": str(short), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.run_all", "--minutes", "0.1", "--no-rivals", "--only", *names]
    done = subprocess.run(
        [*command, "--out", str(results)], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    text = results.read_text()
    assert "failed:" not in text, done.stderr
    newest, older = text.split("## 2020-01-01")
    assert older.strip() == "an older machine"
    sections = re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", newest, re.M | re.S)
    assert [name for name, _ in sections] == names
    for name, section in sections:
        assert len(re.findall(r"^\|.*\d.*\|$", section, re.M)) >= 2, section
        assert ("left out by --no-rivals" in section) == (name in ("convert", "download"))
    assert "no GPU: not measured" in newest
    assert str(short) not in text
    assert str(ROOT) not in text


def test_results_name_no_folder_of_the_machine() -> None:
    assert without_places("No such file: '/tmp/tmpx1/mds/shard.0' of 3.0/4.0 s") == "No such file: '...' of 3.0/4.0 s"


@pytest.mark.slow
def test_that_tensors_are_the_same_is_checked(tmp_path: Path) -> None:
    generate(tmp_path, 2)
    samples = list(raw_samples(tmp_path))
    processor = processor_of_real_size("builtin:tiny")
    ours, theirs = (
        {name: one_sample(batch, row) for row, name in enumerate(batch["sample_ids"])}
        for batch in (ByTheWorld(processor)(samples), ByTransformers(processor, slow=True)(samples))
    )
    assert compare(theirs, ours) == ("equal", "1")
    first, second = theirs.values()
    second["world_pixel_values"] += 0.1  # 13 grey levels
    assert compare(theirs, ours)[1].startswith(("13, more than one", "14, more than one"))
    first["labels"][-2] += 1
    assert compare(theirs, ours)[0] == "not equal"
