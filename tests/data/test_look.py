"""convert/look.py: what a user is told of a file that is not known yet."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from theworld.commands.look import command

TALK = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "There."}]
GOOD = {"filename": "a", "conversations": TALK, "bbox": []}


def look(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> tuple[int, str, str]:
    code = command([str(path), *arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def written(folder: Path, entries: list[Any]) -> Path:
    path = folder / "some.json"
    path.write_text(json.dumps(entries))
    return path


def test_the_sample(capsys: pytest.CaptureFixture[str], raw_sample: Path) -> None:
    path = raw_sample / "openspatial.json"
    entries = json.loads(path.read_text())
    there = sum((raw_sample / "images" / f"{one['filename']}.jpg").exists() for one in entries)
    code, out, _ = look(capsys, path, "--images", str(raw_sample / "images"))
    assert code == 0
    assert f"; {len(entries)} entries\n" in out
    assert "bbox           100.0 %  list of [4 numbers]" in out
    assert "conversations  100.0 %  list of {from: text, value: text}" in out
    assert "form: openspatial, 100.0 %; convert/to_mds.py reads it with convert.format=openspatial" in out
    assert f"images: {there} of {len(entries)} are in" in out


@pytest.mark.parametrize(
    ("entry", "form", "usable"),
    [
        ({"id": "1", "image": "coco/a.jpg", "conversations": TALK}, "llava", 2),
        ({"images": ["a.jpg", "b.jpg"], "conversations": TALK}, "llava", 2),
        ({"id": "1", "conversations": TALK}, "llava", 2),
        ({"messages": [{"role": "user", "content": "Where?"}], "images": ["a.jpg"]}, "messages", 0),
        ({"image": "a.jpg", "caption": "A dog."}, "captions", 2),
        ({"image_info": {"file_path": "a.jpg"}, "qa_info": {}, "conversations": TALK}, "spatialrgpt_bench", 2),
    ],
)
def test_other_forms_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, entry: Any, form: str, usable: int
) -> None:
    code, out, _ = look(capsys, written(tmp_path, [entry, entry]))
    assert code == 0
    assert f"form: {form}, 100.0 %; convert/to_mds.py reads it with convert.format={form}\n" in out
    assert f"usable: {usable} of 2\n" in out


def test_no_form(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = look(capsys, written(tmp_path, [{"question": "Where?"}]))[1]
    assert "form: none that is known, 100.0 %; convert/to_mds.py does not read it\n" in out
    assert "usable" not in out


def test_what_differs_between_entries(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    entries = [GOOD, {**GOOD, "filename": "../b"}, {**GOOD, "bbox": None, "note": 1}, {"image": "x", "caption": "y"}]
    _, out, _ = look(capsys, written(tmp_path, entries))
    assert "bbox            75.0 %  empty list or null" in out
    assert "note            25.0 %  number" in out
    assert "form: openspatial, 75.0 %" in out
    assert "form: captions, 25.0 %" in out
    assert "usable: 2 of 4" in out
    assert "1 not: file name has a path in it" in out
    assert "1 not: bbox is not a list of boxes" in out


def test_images_by_path_by_name_and_out_of_the_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "coco").mkdir(parents=True)
    for name in ("coco/a.jpg", "coco/b.png"):
        (images / name).touch()
    (tmp_path / "secret.jpg").touch()
    names = ["coco/a.jpg", "a.jpg", "b", "../secret.jpg", "/etc/passwd", "none.jpg"]
    path = written(tmp_path, [{"image": name, "conversations": TALK} for name in names])
    _, out, _ = look(capsys, path, "--images", str(images))
    assert "images: 3 of 6 are in" in out
    assert "(50.0 %); 2 names lead out of it and are not looked for" in out


def test_packed_lines_as_far_as_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(GOOD) for _ in range(30)).encode()))
    assert "the first 20 entries (--entries all: all)" in look(capsys, path, "--entries", "20")[1]
    for asked in ("30", "all"):
        assert "; 30 entries\n" in look(capsys, path, "--entries", asked)[1]


def test_parquet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    rows = [{"messages": [{"role": "user", "content": "Where?"}], "image": {"bytes": b"x", "path": "a.jpg"}}] * 3
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    _, out, _ = look(capsys, path)
    assert "; 3 entries\n" in out
    assert "image     100.0 %  {bytes: bytes, path: text}" in out
    assert "form: messages, 100.0 %" in out
    path.write_bytes(path.read_bytes()[:-9])
    code, _, error = look(capsys, path)
    assert code == 2
    assert error.startswith(f"error: {path}: cut short or no Parquet file")


@pytest.mark.parametrize(
    ("arguments", "content", "says"),
    [
        ([], "<html>", "a web page (HTML), not JSON"),
        ([], '[{"filename": "a"}, {"filename":', "cut short: the file ends inside an entry"),
        (["--entries", "0"], "[]", "--entries 0: expected a number above 0, or all"),
        (["--images", "/nowhere"], "[]", "--images /nowhere: no such folder"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], content: str, says: str
) -> None:
    path = tmp_path / "some.json"
    path.write_text(content)
    code, _, error = look(capsys, path, *arguments)
    assert code == 2
    assert error.startswith("error: ")
    assert says in error
    assert error.count("\n") == 1
    assert look(capsys, tmp_path / "none.json")[0] == 2
