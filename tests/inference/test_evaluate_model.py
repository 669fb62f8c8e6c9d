"""A model is asked a benchmark: each question once, also when it is stopped and started again on more ranks."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_set_hub import SHA, served
from tests.helpers.launcher import run
from tests.helpers.several_pictures import several_pictures
from tests.helpers.terminal import seen
from theworld import progress
from theworld.commands.evaluate import command
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.samples import DecodedSample, Turn
from theworld.errors import UserError
from theworld.evaluation.question_kind import category_of
from theworld.inference.answer_file import derangement, drawn
from theworld.inference.answering import Answerer, Asked
from theworld.inference.benchmark_data import read_benchmark, read_holdout
from theworld.inference.load_trained import load_trained

COUNT = 7
SHORT = ("--max-new-tokens", "3", "--batch-size", "2")


def row(number: int) -> dict[str, Any]:
    """As SpatialRGPT-Bench has it, with some columns as texts of Python literals."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (30 * number, 90, 120)).save(file, "PNG")
    turns = [
        {"from": "human", "value": "Is <mask> above <mask>?"},
        {"from": "gpt", "value": "Yes, Region [0] is above Region [1]."},
    ]
    return {
        "id": f"made_up_{number}",
        "image": {"bytes": file.getvalue(), "path": None},
        "image_info": str({"file_path": "a.png", "height": 48, "width": 64}),
        "text_q": "Is Region [0] above Region [1]?",
        "conversations": str(turns),
        "bbox": str([[2.0, 3.0, 20.0, 20.0], [30.0, 20.0, 60.0, 44.0]]),
        "rle": [],
        "qa_info": str({"type": "qualitative", "category": "above_predicate"}),
    }


def write_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder.mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "val-00000-of-00001.parquet")
    return folder


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "bench", [row(number) for number in range(COUNT)])


def evaluate(benchmark: Path, out: Path, *more: str) -> int:
    return command(["builtin:tiny", "--data", str(benchmark), "--out", str(out), *SHORT, *more])


def lines_in(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for path in folder.glob("answers-rank*.jsonl") for line in path.read_text().splitlines()]


def test_every_question_once_and_nothing_is_asked_again(benchmark: Path, tmp_path: Path) -> None:
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    assert evaluate(benchmark, out, "--json", str(figures)) == 0
    (folder,) = out.iterdir()
    first = lines_in(folder)
    assert sorted(line["id"] for line in first) == [f"made_up_{number}" for number in range(COUNT)]
    scores = json.loads(figures.read_text())
    assert scores["questions"] == COUNT
    assert scores["blind_floor"] == 100
    assert json.loads((folder / "scores.json").read_text()) == scores
    # Stopped in the middle of the fifth line: the others stay, the rest is asked again with the same answers.
    path = folder / "answers-rank0.jsonl"
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(content[:4]) + content[4][:9])
    assert evaluate(benchmark, out) == 0
    assert path.read_bytes().splitlines(keepends=True)[:4] == content[:4]
    assert lines_in(folder) == first
    # An answer that stands is taken as it stands.
    path.write_bytes(path.read_bytes().replace(json.dumps(first[0]["prediction"]).encode(), b'"Yes."', 1))
    assert evaluate(benchmark, out) == 0
    assert lines_in(folder)[0]["prediction"] == "Yes."


def test_a_bar_on_a_terminal_and_lines_in_a_log(
    benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shown: list[str] = []
    with seen(shown):
        assert evaluate(benchmark, tmp_path / "first") == 0
    assert f"{COUNT}/{COUNT}" in shown[0]
    assert "questions/s" in shown[0]
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress.Progress.__init__, "__defaults__", ("", 0.0, True))
    assert evaluate(benchmark, tmp_path / "second") == 0
    assert any(re.match(rf"2 of {COUNT} questions, .* questions/s, .* min left", line) for line in caplog.messages)


def test_ranks_share_the_questions(benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher's environment without its rendezvous: what each rank writes, and what one process makes of it."""
    from theworld.inference import evaluate_model

    monkeypatch.setattr(evaluate_model, "wait_for_all", lambda ranks: None)
    out = tmp_path / "out"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert evaluate(benchmark, out) == 0
    (folder,) = out.iterdir()
    shares = {path.name: len(path.read_text().splitlines()) for path in folder.glob("*.jsonl")}
    assert shares == {"answers-rank0.jsonl": 4, "answers-rank1.jsonl": 3}
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert evaluate(benchmark, out) == 0
    assert len(lines_in(folder)) == COUNT


def test_other_settings_are_another_evaluation(benchmark: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert evaluate(benchmark, out, "--limit", "2") == 0
    assert evaluate(benchmark, out, "--limit", "2", "--world", "off") == 0
    assert evaluate(benchmark, out, "--limit", "3") == 0
    assert sorted(len(lines_in(folder)) for folder in out.iterdir()) == [2, 2, 3]


def test_boxes_are_drawn_as_the_question_numbers_them(benchmark: Path) -> None:
    drawn, plain = (read_benchmark(str(benchmark), 1, draws)[0][0] for draws in (True, False))
    assert drawn.draw()[0].tobytes() != plain.draw()[0].tobytes()
    assert drawn.draw()[0].getpixel((2, 3)) == (230, 25, 75), "Region [0] has the first colour"
    assert plain.draw()[0].getpixel((2, 3)) == (0, 90, 120)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": str([[1.0, 2.0, 3.0, 4.0]])}, "1 boxes for regions (0, 1)"),
        ({"qa_info": str({"category": "loud_predicate"})}, "unknown category 'loud_predicate'"),
        ({"qa_info": "__import__('os').abort()"}, "made_up_0"),
        ({"image": {"bytes": b"no picture", "path": None}}, "cannot identify image"),
    ],
)
def test_a_row_of_another_layout_is_one_line(
    change: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_parquet(tmp_path / "bench", [row(0) | change])
    assert evaluate(folder, tmp_path / "out") == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_the_benchmark_may_be_a_data_set_of_the_hub(benchmark: Path, tmp_path: Path) -> None:
    """By the real client, over HTTP: the same questions in the same folder of answers as from the files themselves."""
    log, out = tmp_path / "log", tmp_path / "out"
    with served() as hub:
        hub.content = next(benchmark.glob("*.parquet")).read_bytes()
        ask = [sys.executable, "recipes/evaluate.py", "builtin:tiny", *SHORT, "--out", str(out), "--data"]
        assert run([*ask, "hf://me/set@v2"], log, hub.environment(tmp_path)) == 0, log.read_text()
        assert any(f"resolve/{SHA}" in asked for asked in hub.asked), "at the commit that v2 is"
        (folder,) = out.iterdir()
        assert len(lines_in(folder)) == COUNT
        assert run([*ask, str(benchmark)], log, hub.environment(tmp_path)) == 0, log.read_text()
        assert list(out.iterdir()) == [folder]
        assert run([*ask, "hf://me/other"], log, hub.environment(tmp_path)) == 2
    last = log.read_text().splitlines()[-1]
    assert last.startswith("error: --data hf://me/other: "), last


def test_missing_files_and_columns_are_one_line(tmp_path: Path) -> None:
    lacking = row(0)
    del lacking["bbox"]
    with pytest.raises(UserError, match="has no column 'bbox'"):
        read_benchmark(str(write_parquet(tmp_path / "bench", [lacking])), None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no \.parquet file"):
        read_benchmark(str(tmp_path / "empty"), None)
    (tmp_path / "empty" / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="cut short or no Parquet file"):
        read_benchmark(str(tmp_path / "empty"), None)


def test_the_held_out_share_is_asked_too(mds_sample: Path, tmp_path: Path) -> None:
    arguments = ["builtin:tiny", "--bench", "holdout", "--data", str(mds_sample), "--limit", "4", *SHORT]
    assert command([*arguments, "--out", str(tmp_path / "out")]) == 0
    (folder,) = (tmp_path / "out").iterdir()
    assert len(lines_in(folder)) == 4


@pytest.fixture
def several(tmp_path: Path) -> Path:
    return several_pictures(tmp_path)


def test_a_held_out_sample_is_asked_with_its_pictures(several: Path) -> None:
    """Those that training has shown up to the question, boxes in their own picture, and none without any."""
    found = {one.question.id: one for one in read_holdout(several, None)[0]}
    assert {name: one.question.text for name, one in found.items()} == {
        "two/0": "<image><image>Is Region [0] above Region [1]?",
        "two/1": "<image><image>How wide is Region [1]?",
        "three/0": "How wide is Region [0]?",
        "three/2": "<image>In <image> or <image>: how wide is Region [1]?",
        "one/0": "How wide is Region [0]?",
    }
    shown = {name: [np.asarray(picture)[1, 88, 0] // 30 for picture in one.draw()] for name, one in found.items()}
    assert shown == {"two/0": [0, 1], "two/1": [0, 1], "three/0": [2], "three/2": [2, 3, 4], "one/0": [5]}
    first, second = found["two/0"].draw()
    assert (first.getpixel((20, 30)), second.getpixel((20, 30))) == ((230, 25, 75), (60, 180, 75))
    plain = {one.question.id: one for one in read_holdout(several, None, False)[0]}
    assert plain["two/0"].draw()[1].getpixel((20, 30)) == (30, 90, 120)


def test_the_prompt_of_a_turn_is_that_of_training(several: Path) -> None:
    """A turn behind others is asked as a sample is trained on whose first question has the earlier pictures too."""
    answerer = Answerer(load_trained("builtin:tiny"))
    encoder = SampleEncoder(answerer.processor, 4096)
    for one in read_holdout(several, None)[0]:
        first, *others = one.draw()
        sample = DecodedSample("x", first, [Turn(one.question.text, "Yes.")], more=list(others))
        prompt = answerer.prompt_ids(Asked((first, *others), one.question.text))
        assert encoder(sample).input_ids[: len(prompt)] == prompt
        assert prompt.count(answerer.tokenizer.boi_token_id) == 1 + len(others)


def test_samples_of_several_pictures_are_evaluated(several: Path, tmp_path: Path, world_run: Path) -> None:
    """With each kind of world, of a model that has one."""
    for world in ("on", "off", "zero", "shuffled"):
        arguments = [str(world_run), "--bench", "holdout", "--data", str(several), "--world", world, *SHORT]
        assert command([*arguments, "--out", str(tmp_path / world)]) == 0
        (folder,) = (tmp_path / world).iterdir()
        assert sorted(line["id"] for line in lines_in(folder)) == ["one/0", "three/0", "three/2", "two/0", "two/1"]


def test_every_question_gets_another_ones_picture() -> None:
    pictures = [(b"a",), (b"a",), (b"b",), (b"c",), (b"c",), (b"d",)]
    taken = derangement(pictures, 0)
    assert sorted(taken) == [((place, 0),) for place in range(6)]
    assert all(pictures[own] != pictures[other] for own, ((other, _),) in enumerate(taken))
    assert derangement(pictures, 0) == taken
    assert any(derangement(pictures, seed) != taken for seed in range(1, 9))
    assert [other for ((other, _),) in taken] == [5, 3, 1, 2, 0, 4], "as for answers that are there already"
    with pytest.raises(UserError, match="over half"):
        derangement([(b"a",), (b"a",), (b"b",)], 0)


def test_every_one_of_several_pictures_is_replaced_by_another_samples() -> None:
    """Samples that have a picture in common, the first with the third by way of the second, count as one."""
    pictures = [(b"a", b"b"), (b"b", b"c"), (b"c",), (b"d", b"e", b"f"), (b"g",), (b"d",), (b"h", b"i")]
    joined = [0, 0, 0, 1, 2, 1, 3]
    for seed in range(20):
        taken = derangement(pictures, seed)
        assert [len(others) for others in taken] == [len(own) for own in pictures]
        slots = [slot for others in taken for slot in others]
        assert sorted(slots) == [(place, number) for place, own in enumerate(pictures) for number in range(len(own))]
        assert all(joined[own] != joined[other] for own, others in enumerate(taken) for other, _ in others)
    with pytest.raises(UserError, match="over half"):
        derangement([(b"a", b"b"), (b"b", b"c"), (b"d",)], 0)


def test_worlds_are_those_of_other_samples_pictures(several: Path) -> None:
    questions, _ = read_holdout(several, None)
    worlds = derangement([one.stored for one in questions], 0)
    given = [drawn(questions, place, worlds) for place in range(len(questions))]
    for asked in given:
        assert asked.world_pictures is not None
        own, others = (
            {picture.getpixel((88, 1)) for picture in pictures} for pictures in (asked.pictures, asked.world_pictures)
        )
        assert len(asked.world_pictures) == len(asked.pictures)
        assert not own & others
    made = sorted(picture.tobytes() for asked in given for picture in asked.pictures)
    assert sorted(picture.tobytes() for asked in given for picture in asked.world_pictures or ()) == made


def test_categories_are_told_from_the_words() -> None:
    assert category_of("Is Region [3] taller than Region [5]?") == "tall_predicate"
    assert category_of("Which of these two is closer to the camera, Region [0] or Region [1]?") == "front_choice"
    assert category_of("What is the vertical distance between Region [0] and Region [2]?") == "vertical_distance_data"
    assert category_of("How much wider is Region [0] than Region [1]?") is None
    assert category_of("How far is Region [0] from the camera?") is None
