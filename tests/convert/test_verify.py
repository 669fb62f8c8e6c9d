"""``convert/verify.py``: finds every kind of damage, and nothing where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from raw_folder import ROOT, Raw, name

from theworld.data.shards.convert import convert


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    made = Raw(tmp_path / "raw", 40)
    made.add_images(*range(0, 40, 2))
    convert(made.config())
    made.add_images(1)
    convert(made.config())
    return made


def run(folder: Path | str) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / "convert" / "verify.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("compression", [None, "zstd:1"])
def test_a_whole_data_set(tmp_path: Path, compression: str | None) -> None:
    raw = Raw(tmp_path / "raw", 40)
    raw.add_images(*range(40))
    convert(raw.config(compression=compression))
    code, output = run(raw.out)
    assert code == 0
    assert "40 samples" in output
    assert "all as written" in output


def flip_a_byte(out: Path) -> None:
    path = out / "gen-00000" / "shard.00001.mds"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_a_shard(out: Path) -> None:
    path = out / "gen-00000" / "shard.00001.mds"
    path.write_bytes(path.read_bytes()[:-1])


def lose_a_shard(out: Path) -> None:
    (out / "gen-00000" / "shard.00001.mds").unlink()


def change_a_generation_index(out: Path) -> None:
    path = out / "gen-00001" / "index.json"
    path.write_bytes(path.read_bytes() + b" ")


def change_the_root_index(out: Path) -> None:
    path = out / "index.json"
    index = json.loads(path.read_text())
    index["shards"].pop()
    path.write_text(json.dumps(index))


def lose_a_generation(out: Path) -> None:
    (out / "gen-00001").rename(out / "lost")


def change_the_count(out: Path) -> None:
    path = out / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["samples"] += 1
    path.write_text(json.dumps(manifest))


def change_the_ids(out: Path) -> None:
    path = out / "gen-00000" / "ids.txt"
    path.write_text(path.read_text().replace(name(4), name(5)))


def repeat_an_id(out: Path) -> None:
    path = out / "gen-00001" / "ids.txt"
    path.write_text(name(0) + "\n")


def break_a_generation_index(out: Path) -> None:
    (out / "gen-00001" / "index.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "where", "what"),
    [
        (flip_a_byte, "gen-00000/shard.00001.mds", "hash differs"),
        (cut_a_shard, "gen-00000/shard.00001.mds", "bytes, expected"),
        (lose_a_shard, "gen-00000/shard.00001.mds", "not there"),
        (change_a_generation_index, "gen-00001", "not the one that manifest.json describes"),
        (change_the_root_index, "index.json", "not the sum of the generations"),
        (lose_a_generation, "gen-00001", "in manifest.json, but not there"),
        (change_the_count, "manifest.json", "counts 22 samples, the shards hold 21"),
        (change_the_ids, "gen-00000/shard.00000.mds", "its ids are not those in ids.txt"),
        (repeat_an_id, "1 ids", "more than once"),
        (break_a_generation_index, "gen-00001/index.json", "damaged"),
    ],
)
def test_damage(raw: Raw, damage: Callable[[Path], None], where: str, what: str) -> None:
    damage(raw.out)
    code, output = run(raw.out)
    assert code == 1
    assert any(line.startswith("damaged:") and where in line and what in line for line in output.splitlines()), output


@pytest.mark.parametrize("folder", ["", "/nowhere", "--what"])
def test_not_a_data_set(tmp_path: Path, folder: str) -> None:
    code, output = run(folder or tmp_path)
    assert code == 2
    assert output.startswith("error: ")
