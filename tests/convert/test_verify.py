"""``convert/verify.py``: finds every kind of damage, and nothing where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from raw_folder import ROOT, Raw, hashes, image_bytes, name

from theworld.commands.verify import main
from theworld.data.shards.convert import convert
from theworld.errors import UserError


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


@pytest.mark.parametrize("compression", [None, "zstd:1"])
def test_source_lists_what_was_replaced_and_what_was_found_better(
    tmp_path: Path, compression: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = Raw(tmp_path / "raw", 12)
    raw.add_images(*range(2, 12))
    (raw.images / "extra").mkdir()
    for number in (0, 1):
        size = 40 + number % 7, 30 + number % 5
        (raw.images / "extra" / f"{name(number)}.png").write_bytes(image_bytes(number, "PNG", size))
    convert(raw.config(image_folders=[".", "extra"], compression=compression))
    before = hashes(raw.out)
    raw.add_images(1)
    path = raw.images / f"{name(5)}.jpg"
    same_size = bytearray(path.read_bytes())
    same_size[-10] ^= 1
    path.write_bytes(same_size)
    (raw.images / f"{name(7)}.jpg").write_bytes(image_bytes(70))
    (raw.images / f"{name(8)}.jpg").unlink()
    assert main([str(raw.out), "--source"]) == 0
    output = capsys.readouterr().out
    listed = [line for line in output.splitlines() if line.startswith("replaced:")]
    assert listed == [f"replaced: {name(number)} {name(number)}.jpg" for number in (1, 5, 7)]
    assert "source: 8 the same, 3 replaced, 1 no longer there" in output
    assert f"convert.out={raw.out}-2" in output
    assert hashes(raw.out) == before


def test_source_in_another_place_and_in_none(raw: Raw, capsys: pytest.CaptureFixture[str]) -> None:
    moved = raw.images.rename(raw.folder / "moved")
    with pytest.raises(UserError, match="cannot read the images"):
        main([str(raw.out), "--source"])
    assert main([str(raw.out), "--source", str(moved)]) == 0
    output = capsys.readouterr().out
    assert "source: 21 the same, 0 replaced, 0 no longer there" in output
    assert "convert.out=" not in output
    (raw.out / ".convert" / "source.json").unlink()
    with pytest.raises(UserError, match="--source IMAGES"):
        main([str(raw.out), "--source"])
