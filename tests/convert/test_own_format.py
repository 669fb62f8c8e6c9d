"""``convert.format: module:function``: the user's own code, what it gives, and what becomes of its mistakes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from shapes import FIRST, PICTURE, Set

from theworld.commands.to_mds import command
from theworld.data.samples.decode import decode_sample

NAME = "own_form"
GOOD = """
def read(entry):
    if entry["split"] != "train":
        return None
    turns = [{"from": "human", "value": entry["q"]}, {"from": "gpt", "value": entry["a"]}]
    boxes = entry["xyxy"]
    return {"image": entry["file"], "conversations": turns, "id": entry["key"], "boxes": boxes, "source": "mine"}
"""


def entry(number: int, **changes: Any) -> dict[str, Any]:
    good = {"key": f"k{number}", "split": "train", "file": PICTURE, "q": "How wide is <mask>?", "a": f"{number} m."}
    return {**good, "xyxy": [list(FIRST)], **changes}


@pytest.fixture(autouse=True)
def nothing_imported_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process imports a module once."""
    monkeypatch.delitem(sys.modules, NAME, raising=False)


def run(made: Set, code: str) -> int:
    """The command, with a module of the user's."""
    path = made.out.parent / f"{NAME}.py"
    path.write_text(code)
    places = [f"convert.json={made.json}", f"convert.images={made.images}", f"convert.out={made.out}"]
    return command(["yamls/smoke.yaml", *places, f"convert.format={NAME}:read", f"code_paths=[{path}]"])


def test_what_it_gives_becomes_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Set(tmp_path, [entry(1), entry(2, split="val"), entry(3, xyxy=[])], PICTURE)
    assert run(made, GOOD) == 0
    (sample,) = made.samples()
    assert sample["about"] == {"image": PICTURE, "source": "mine"}
    assert [(turn.question, turn.answer) for turn in decode_sample(sample).turns] == [
        ("How wide is Region [0]?", "1 m.")
    ]
    assert made.rejected() == [("", "left out by convert.format"), ("k3", "fewer boxes than <mask> tokens")]
    assert "own_form:read" in capsys.readouterr().out
    manifest = json.loads((made.out / "manifest.json").read_text())
    assert manifest["format"] == "own_form:read"


def test_changed_code_reads_the_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Set(tmp_path, [entry(1), entry(2, split="val")], PICTURE)
    assert run(made, GOOD) == 0
    monkeypatch.delitem(sys.modules, NAME)
    assert run(made, GOOD.replace('!= "train"', '== "test"')) == 0
    assert made.ids() == ["k1", "k2"]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def read(entry):\n    return entry['nothing']\n", "failed on entry {'key': 'k1'"),
        ("def read(entry):\n    return 5\n", "gave 5; expected a mapping with image, conversations"),
        ("def read(entry):\n    return {'image': 'a.jpg'}\n", "expected a mapping with image, conversations"),
        ("def read(entry):\n    return {'image': '', 'conversations': [], 'x': 1}\n", "expected a mapping with image"),
        ("read = 5\n", "own_form:read: is not a class or function"),
        ("other = 5\n", "has no attribute 'read'"),
    ],
)
def test_its_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, says: str) -> None:
    made = Set(tmp_path, [entry(1)], PICTURE)
    assert run(made, code) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("changes", [{"xyxy": 5}, {"xyxy": None}, {"file": 7}, {"key": [1]}, {"q": None}, {"a": 5}])
def test_values_that_are_none_cost_their_entry(tmp_path: Path, changes: dict[str, Any]) -> None:
    """What the function passes on unseen is checked as if it came from the file."""
    made = Set(tmp_path, [entry(1), entry(2, **changes)], PICTURE)
    assert run(made, GOOD) == 0
    assert made.ids()[0] == "k1"
    assert len(made.ids()) + len(made.rejected()) == 2
