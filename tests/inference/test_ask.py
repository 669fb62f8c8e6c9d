"""Asking about a picture: boxes as in training, a conversation, and one line for what is wrong."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.helpers.launcher import run
from tests.train.test_train import run_config
from theworld.commands.ask import main
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.entries.columns import Picture, pack_more
from theworld.data.samples import decode_sample
from theworld.data.samples.boxes import draw_regions
from theworld.data.samples.regions import unique_regions
from theworld.errors import UserError
from theworld.inference.answering import Answerer, Asked
from theworld.inference.conversation import Conversation, open_picture, parse_box
from theworld.inference.load_trained import load_trained
from theworld.train.run import train

BOXES = ("--box", "2,3,20,20", "--box", "30,20,60,44")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (64, 48), (10, 90, 120)).save(path)
    return path


@pytest.fixture
def second(tmp_path: Path) -> Path:
    path = tmp_path / "second.png"
    Image.new("RGB", (30, 60), (200, 90, 120)).save(path)
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
        "error: /fly: expected /box, /image, /also, /compare or /reset",
    ]


QUESTIONS = ("Is <mask> above <mask>?", "<image>\nIs <mask> above <mask>, and not in <image>?", "Which is darker?\n")


@pytest.mark.parametrize("text", QUESTIONS)
def test_several_pictures_are_asked_about_as_a_sample_of_them_is_trained_on(
    text: str, picture: Path, second: Path
) -> None:
    """From the files and the words to tokens and pixels, boxes in the first picture."""
    boxes = [parse_box(box) for box in BOXES[1::2]]
    mds = {
        "id": "x",
        "image": picture.read_bytes(),
        **{"width": 64, "height": 48, "bbox": [list(box) for box in boxes[: text.count("<mask>")]]},
        "more_images": pack_more(Picture(b"", 0, 0, more=(Picture(second.read_bytes(), 30, 60),))),
        "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "Yes."}],
    }
    answerer = Answerer(load_trained("builtin:tiny"))
    encoded = SampleEncoder(answerer.processor, 4096)(decode_sample(mds))
    talk = Conversation([open_picture(picture), open_picture(second)], boxes[: text.count("<mask>")])
    inputs = answerer.encode([Asked(talk.seen(), talk.question(text))])
    prompt = inputs["input_ids"][0].tolist()
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.labels[len(prompt)] == encoded.input_ids[len(prompt)]
    assert torch.equal(inputs["pixel_values"], encoded.pixels["pixel_values"])


def test_all_pictures_are_written_side_by_side(
    picture: Path, second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = tmp_path / "seen.png"
    arguments = ["builtin:tiny", str(picture), "How wide is <mask>?", "--image", str(second), *BOXES[:2]]
    assert main([*arguments, "--image", str(picture), "--save", str(seen), "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out.strip()
    shown = Image.open(seen)
    assert shown.size == (64 + 8 + 30 + 8 + 64, 60)
    drawn = draw_regions(Image.open(picture), unique_regions([(2.0, 3.0, 20.0, 20.0)]))
    assert shown.crop((0, 0, 64, 48)).tobytes() == drawn.tobytes(), "the box is of the first"
    assert shown.crop((72, 0, 102, 60)).tobytes() == Image.open(second).tobytes()
    assert shown.crop((110, 0, 174, 48)).tobytes() == Image.open(picture).tobytes()


def test_a_conversation_about_more_pictures(
    picture: Path, second: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers are those of a command for each question; what is not there or does not fit is one line."""
    asked = "Is <image> darker than <image>?"
    more = [f"/also {second}", asked, "And <image>?", "/also none.png"]
    lines = [asked, "How dark?", *more, f"/image {second}", "How dark?", asked]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    assert main(["builtin:tiny", str(picture), "--max-new-tokens", "4"]) == 0
    said, errors = capsys.readouterr()
    wrong = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert wrong[:2] == [
        "error: the question has 2 <image>, but the number of pictures is 1",
        "error: the question has an <image>, but the pictures stand in the first question already",
    ]
    assert wrong[2].startswith("error: none.png: cannot be read as a picture")
    assert wrong[3:] == wrong[:1]
    assert main(["builtin:tiny", str(picture), "How dark?", "--max-new-tokens", "4"]) == 0
    assert main(["builtin:tiny", str(picture), asked, "--image", str(second), "--max-new-tokens", "4"]) == 0
    assert main(["builtin:tiny", str(second), "How dark?", "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out == said


@pytest.mark.slow
def test_several_pictures_as_a_user_asks(picture: Path, second: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "recipes/ask.py", "builtin:tiny", str(picture), "--image", str(second), "--json"]
    assert run([*command, "Is <image> as <image>?", "--max-new-tokens", "2"], log) == 0, log.read_text()
    assert json.loads(log.read_text().splitlines()[-1])["question"] == "Is <image> as <image>?"
    assert run([*command, "Is it as <image>?"], log) == 2
    assert log.read_text().splitlines()[1:] == ["error: the question has 1 <image>, but the number of pictures is 2"]


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


def test_a_run_whose_tokenizer_cannot_be_read_is_one_line(
    raw_sample: Path, mds_sample: Path, picture: Path, tmp_path: Path
) -> None:
    """As one that transformers 5 has written is to transformers 4."""
    config = run_config(raw_sample, mds_sample, tmp_path, "max_duration=1ba")
    assert train(config) == 0
    pretrained = Path(str(config.save_folder)) / "pretrained"
    (pretrained / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UserError, match="pretrained: its files are damaged or do not go together"):
        main([str(config.save_folder), str(picture), "What?"])
