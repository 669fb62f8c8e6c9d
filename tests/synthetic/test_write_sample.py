"""What a call leaves on disk: the same bytes always, nothing half-written, nothing rewritten."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from theworld.errors import UserError
from theworld.synthetic import describe, filename, generate

SCRIPT = Path(__file__).parents[2] / "convert" / "sample.py"
SIZE = 96


def hashes(folder: Path) -> dict[str, str]:
    """Relative path to digest, of every file, hidden ones too."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def image_names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "images").iterdir()}


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_writes_json_and_images(tmp_path: Path) -> None:
    summary = generate(tmp_path, samples=10, seed=2, size=SIZE)
    assert set(hashes(tmp_path)) == {"openspatial.json"} | {f"images/{filename(2, i)}.jpg" for i in range(10)}
    entries = json.loads((tmp_path / "openspatial.json").read_text())
    assert entries == [describe(2, index, SIZE).entry() for index in range(10)]
    assert (summary.samples, summary.available, summary.written) == (10, 10, 10)
    assert summary.json_bytes == (tmp_path / "openspatial.json").stat().st_size
    assert summary.image_bytes == sum(path.stat().st_size for path in summary.images.iterdir())


def test_captions_are_of_the_same_pictures_and_true(tmp_path: Path) -> None:
    generate(tmp_path, samples=10, seed=2, size=SIZE)
    pictures = hashes(tmp_path / "images")
    done = generate(tmp_path, samples=10, seed=2, size=SIZE, captions=True)
    assert (done.json.name, done.written) == ("captions.json", 0)
    assert hashes(tmp_path / "images") == pictures
    for index, entry in enumerate(json.loads(done.json.read_text())):
        scene = describe(2, index, SIZE).scene
        assert entry["image"] == f"{entry['id']}.jpg" == f"{filename(2, index)}.jpg"
        found = re.fullmatch(r"From left to right, (.+) (on a table|in a room|in a field)\.", entry["caption"])
        assert found is not None, entry
        assert found[2].endswith(scene.kind)
        middles = []
        for name in re.split(r", | and ", found[1]):
            seen = [k for k, one in enumerate(scene.things) if name.split(" ", 1)[1].endswith(one.category)]
            seen = [k for k in seen if scene.gray or scene.things[k].colour in name]
            assert len(seen) == 1, (name, scene.things)
            columns = np.flatnonzero((scene.labels == seen[0] + 1).any(axis=0))
            middles.append(columns[0] + columns[-1])
        assert len(middles) >= 3
        assert middles == sorted(middles)


def test_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    for workers in (1, 3):
        generate(tmp_path / str(workers), samples=50, workers=workers, size=SIZE)
    assert hashes(tmp_path / "1") == hashes(tmp_path / "3")


def test_a_larger_set_starts_with_the_smaller_one(tmp_path: Path) -> None:
    generate(tmp_path / "small", samples=7, size=SIZE)
    generate(tmp_path / "large", samples=20, size=SIZE)
    small, large = (json.loads((tmp_path / name / "openspatial.json").read_text()) for name in ("small", "large"))
    assert large[:7] == small
    assert hashes(tmp_path / "small" / "images").items() <= hashes(tmp_path / "large" / "images").items()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6, 0.999, 1.0])
def test_exactly_the_share_of_images_is_there(tmp_path: Path, share: float) -> None:
    summary = generate(tmp_path, samples=30, available=share, size=SIZE)
    assert len(image_names(tmp_path)) == summary.available == round(share * 30)
    assert len(json.loads((tmp_path / "openspatial.json").read_text())) == 30


def test_a_higher_share_adds_images_and_rewrites_nothing(tmp_path: Path) -> None:
    generate(tmp_path, samples=30, available=0.5, size=SIZE)
    before = {path: path.stat() for path in tmp_path.rglob("*") if path.is_file()}
    names = image_names(tmp_path)
    summary = generate(tmp_path, samples=30, available=0.9, size=SIZE)
    assert names < image_names(tmp_path)
    assert summary.written == len(image_names(tmp_path)) - len(names)
    assert not summary.json_changed
    for path, stat in before.items():
        now = path.stat()
        assert (now.st_ino, now.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    generate(tmp_path / "fresh", samples=30, available=0.9, size=SIZE)
    assert hashes(tmp_path / "images") == hashes(tmp_path / "fresh" / "images")


def test_the_withheld_images_depend_on_the_seed(tmp_path: Path) -> None:
    kept = []
    for seed in (1, 2):
        generate(tmp_path / str(seed), samples=30, seed=seed, available=0.5, size=SIZE)
        there = image_names(tmp_path / str(seed))
        kept.append([f"{filename(seed, index)}.jpg" in there for index in range(30)])
    assert kept[0] != kept[1]


def test_a_broken_image_is_mended(tmp_path: Path) -> None:
    generate(tmp_path, samples=4, size=SIZE)
    expected = hashes(tmp_path)
    cut, other = sorted((tmp_path / "images").iterdir())[:2]
    os.truncate(cut, 100)
    other.unlink()
    assert generate(tmp_path, samples=4, size=SIZE).written == 2
    assert hashes(tmp_path) == expected


def test_a_killed_call_leaves_no_json_and_the_next_one_completes(tmp_path: Path) -> None:
    out, command = tmp_path / "killed", [sys.executable, str(SCRIPT), str(tmp_path / "killed"), "--size", str(SIZE)]
    with subprocess.Popen([*command, "--samples", "5000"], stderr=subprocess.DEVNULL) as process:
        images = out / "images"
        while process.poll() is None and not (images.is_dir() and any(images.iterdir())):
            os.sched_yield()
        assert process.poll() is None, "finished before it could be killed"
        process.send_signal(signal.SIGKILL)
    assert not (out / "openspatial.json").exists()
    generate(out, samples=20, size=SIZE)
    generate(tmp_path / "whole", samples=20, size=SIZE)
    assert hashes(out).items() >= hashes(tmp_path / "whole").items()
    assert not (out / ".openspatial.json.tmp").exists()


def test_a_killed_worker_is_told_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path), "--size", str(SIZE), "--samples", "5000", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        images = tmp_path / "images"
        while process.poll() is None and not (images.is_dir() and any(images.iterdir())):
            os.sched_yield()
        workers = [
            child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
        assert len(workers) == 2
        workers[0].kill()
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert "worker process was killed" in errors
    assert not (tmp_path / "openspatial.json").exists()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda out: generate(out, samples=0), "samples must be at least 1"),
        (lambda out: generate(out, seed=-1), "seed must not be negative"),
        (lambda out: generate(out, available=1.5), "from 0 to 1"),
        (lambda out: generate(out, available=float("nan")), "from 0 to 1"),
        (lambda out: generate(out, workers=0), "workers must be at least 1"),
        (lambda out: generate(out, size=8), "give 64 to 2048"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, call: Callable[[Path], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*cannot write"):
        generate(tmp_path / "file", samples=1, size=SIZE)


def test_script_writes_the_sample(tmp_path: Path) -> None:
    done = run_script(str(tmp_path), "--samples", "5", "--seed", "4", "--available", "0.6", "--size", str(SIZE))
    assert done.returncode == 0, done.stderr
    assert "5 entries" in done.stdout
    assert "3 images" in done.stdout
    generate(tmp_path / "library", samples=5, seed=4, available=0.6, size=SIZE)
    assert hashes(tmp_path / "library").items() <= hashes(tmp_path).items()


@pytest.mark.parametrize("arguments", [(), ("--samples", "ten"), ("--samples", "0"), ("--unknown",)])
def test_script_says_in_one_line_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    out = (str(tmp_path / "out"),) if arguments else ()
    done = run_script(*out, *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")


def test_script_help() -> None:
    done = run_script("--help")
    assert done.returncode == 0
    assert "--available" in done.stdout
