"""Asking about a picture: boxes as in training, a conversation, and one line for what is wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from theworld.commands.ask import main
from theworld.data.samples.boxes import draw_regions
from theworld.data.samples.regions import unique_regions
from theworld.errors import UserError

BOXES = ("--box", "2,3,20,20", "--box", "30,20,60,44")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (64, 48), (10, 90, 120)).save(path)
    return path


def test_the_answer_and_the_picture_as_the_model_saw_it(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = tmp_path / "seen.png"
    arguments = ["builtin:tiny", str(picture), "Is <mask> above <mask>?", *BOXES, "--max-new-tokens", "4"]
    assert main([*arguments, "--json", "--save", str(seen)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["answer", "question", "boxes", "model"]
    assert said["question"] == "Is Region [0] above Region [1]?"
    assert said["boxes"] == [[2, 3, 20, 20], [30, 20, 60, 44]]
    expected = draw_regions(Image.open(picture), unique_regions(said["boxes"]))
    assert Image.open(seen).tobytes() == expected.tobytes()
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip() == said["answer"]


def test_a_conversation(picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        "How wide is Region [0]?",
        "How wide is Region [1]?",
        "/box 30,20,60,44",
        "How wide is Region [1]?",
        "/fly",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    assert main(["builtin:tiny", str(picture), "--box", "2,3,20,20", "--max-new-tokens", "2"]) == 0
    errors = capsys.readouterr().err.splitlines()
    wrong = [line for line in errors if line.startswith("error: ")]
    assert wrong == [
        "error: the question names Region [1], but there are 1 boxes",
        "error: /fly: expected /box, /image, /compare or /reset",
    ]


def test_a_second_model_is_asked_the_same(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["/compare", "How wide is Region [0]?", "/compare", "/compare builtin:tiny", "And how high?", "/compare"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    assert main(["builtin:tiny", str(picture), "--box", "2,3,20,20", "--max-new-tokens", "4"]) == 0
    said, errors = capsys.readouterr()
    wide, other_wide_and_high, other_high = said.split("builtin:tiny:\n")  # answers may have several lines
    assert wide.strip()
    assert other_wide_and_high == wide + other_high
    assert [line for line in errors.splitlines() if line.startswith("error: ")] == [
        "error: /compare: ask a question first",
        "error: /compare: expected a model, /compare RUN_OR_REPO",
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["How wide is Region [2]?", *BOXES], "names Region \\[2\\], but there are 2 boxes"),
        (["Is <mask> above <mask>?", "--box", "1,2,3,4"], "has 2 <mask>, but there are 1 boxes"),
        (["What?", "--box", "1,2,3"], "--box 1,2,3: expected x1,y1,x2,y2"),
        (["What?", "--box", "100,2,200,4"], "lies outside the picture, which is 64 x 48 pixels"),
        (["What?", "--box", "nan,2,20,4"], "lies outside the picture"),
        ([" "], "the question is empty"),
        (["--json"], "--json needs a QUESTION"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_loads(more: list[str], message: str, picture: Path) -> None:
    with pytest.raises(UserError, match=message):
        main(["no/such/model/here", str(picture), *more])


def test_no_picture_and_no_model(picture: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read as a picture"):
        main(["builtin:tiny", str(tmp_path / "none.png"), "What?"])
    with pytest.raises(UserError, match="no such folder, and not a Hub repo"):
        main(["./none", str(picture), "What?"])
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="holds a bert; expected TheWorld or a Gemma 3"):
        main([str(tmp_path), str(picture), "What?"])
