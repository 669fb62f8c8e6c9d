"""Scoring files of answers: the table, the blind floor, two models paired, and what bad files get."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from theworld.commands.evaluate import command
from theworld.evaluation.intervals import bootstrap_mean, mcnemar, sign_flips, wilson
from theworld.evaluation.known_results import known_results
from theworld.evaluation.questions import Question, is_category
from theworld.evaluation.score_table import best_constant, make_table, score_all

PAIR = "Between Region [0] and Region [1]?"
QUESTIONS = [
    ("a", "left_choice", "Region [1] is more to the left."),
    ("b", "left_choice", "Region [0] is more to the left."),
    ("c", "left_choice", "Region [1] is more to the left."),
    ("d", "width_data", "Region [0] is 1.0 meters wide."),
    ("e", "width_data", "Region [0] is 1.6 meters wide."),
    ("f", "width_data", "Region [0] is 9.0 meters wide."),
    ("g", "direction", "Region [1] is roughly at 11 o'clock."),
    ("h", "direction", "Region [1] is roughly at 1 o'clock."),
]
ANSWERS = {"a": "Region [1]", "b": "Region [1]", "c": "", "d": "1 m", "e": "8 m", "f": "300 pixels", "g": "12 o'clock"}


def write_lines(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [
        {"id": key, "question": PAIR, "qa_category": category, "ground_truth": truth}
        for key, category, truth in QUESTIONS
    ]
    return write_lines(tmp_path / "questions.jsonl", rows)


def answers(path: Path, texts: dict[str, str]) -> Path:
    return write_lines(path, [{"id": key, "prediction": text} for key, text in texts.items()])


def test_the_figures_and_a_verdict_for_each_question(
    questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    given = answers(tmp_path / "answers.jsonl", ANSWERS)
    out = tmp_path / "out.json"
    arguments = ["--bench", "spatialrgpt", "--questions", str(questions), "--answers", str(given), "--json", str(out)]
    assert command(arguments) == 0
    figures = json.loads(out.read_text())
    verdicts = {row["id"]: row["verdict"] for row in figures["rows"]}
    assert verdicts == {"a": True, "b": False, "c": None, "d": True, "e": False, "f": None, "g": True, "h": None}
    assert figures["overall"] == pytest.approx(100 * 3 / 8)
    assert figures["qualitative"] == pytest.approx(100 / 3)
    assert figures["quantitative"] == pytest.approx(100 * 2 / 5)
    assert figures["categories"] == pytest.approx({"left_choice": 100 / 3, "width_data": 100 / 3, "direction": 50})
    assert (figures["undecided"], figures["empty"]) == (3, 2)
    # Two of three sides, two of three widths (1.25 m is right for both), both directions (12 o'clock).
    assert figures["blind_floor"] == pytest.approx(100 * 6 / 8)
    shown = capsys.readouterr()
    assert "blind floor" in shown.out
    assert "1 of 8 questions have no answer" in caplog.text


def test_errors_of_lengths_and_hours_are_not_mixed() -> None:
    asked = [Question(key, PAIR, truth, category) for key, category, truth in QUESTIONS]
    lines = {line.name: line for line in make_table(score_all(asked, ANSWERS))}
    assert lines["overall"].error == pytest.approx((0 + 4) / 2)
    assert lines["direction"].error == pytest.approx(1)
    assert lines["overall"].of_decided == pytest.approx(100 * 3 / 5)
    assert lines["overall"].low < lines["overall"].accuracy < lines["overall"].high


def test_two_models_paired(questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = answers(tmp_path / "a.jsonl", ANSWERS)
    second = answers(tmp_path / "b.jsonl", ANSWERS | {"b": "Region [0]", "e": "1.6 m"})
    assert command(["--questions", str(questions), "--compare", str(first), str(second)]) == 0
    shown = capsys.readouterr().out
    (line,) = (line for line in shown.splitlines() if line.startswith("overall"))
    # 37.5 against 62.5 %; nothing that only the first has right, two that only the second has; p of two heads is 0.5.
    assert line.split()[:4] == ["overall", "8", "37.5", "62.5"]
    assert line.split()[7:10] == ["0", "2", "0.5"]
    assert "warning" not in shown
    assert command(["--questions", str(questions), "--compare", str(first), str(first)]) == 0
    assert "warning: 100.0 % of the answers are identical" in capsys.readouterr().out


def test_published_results_have_sources_and_stand_apart(
    questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = answers(tmp_path / "answers.jsonl", ANSWERS)
    command(["--questions", str(questions), "--answers", str(given), "--known"])
    shown = capsys.readouterr().out
    assert shown.index("overall") < shown.index("Not measured here") < shown.index("SpatialRGPT-VILA-8B")
    assert all(one["source"] for one in known_results()["results"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json", "no JSON object with a text 'id'"),
        ('{"id": "a"}', "with a text 'prediction'"),
        ('{"id": "a", "prediction": "x"}\n{"id": "a", "prediction": "y"}', "the id 'a' comes twice"),
        ('{"id": "z", "prediction": "x"}', "1 answers belong to no question, the first is 'z'"),
    ],
)
def test_bad_answers_are_one_line(
    line: str, message: str, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "answers.jsonl"
    given.write_text(line + "\n")
    assert command(["--questions", str(questions), "--answers", str(given)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_bad_questions_and_arguments_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "a", "question": PAIR, "ground_truth": "Yes.", "qa_category": "loud_predicate"}
    strange = str(write_lines(tmp_path / "strange.jsonl", [row]))
    given = str(answers(tmp_path / "answers.jsonl", {}))
    for arguments, message in (
        (["--questions", strange, "--answers", given], "unknown category 'loud_predicate'"),
        (["--questions", str(tmp_path / "none"), "--answers", given], "cannot be read"),
        (["--answers", given], "need --questions"),
        ([], "give one of RUN_OR_REPO, --answers FILE or --compare A B"),
    ):
        assert command(arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_intervals_and_tests_against_known_values() -> None:
    # Newcombe 1998, table I: 81 of 263.
    assert wilson(81, 263) == pytest.approx((25.53, 36.62), abs=0.01)
    assert mcnemar(2, 10) == pytest.approx(0.03857, abs=1e-5)
    assert mcnemar(0, 0) == 1
    assert bootstrap_mean([1.0, 1.0]) == (1.0, 1.0)
    assert sign_flips([1.0] * 10) < 0.01
    assert sign_flips([1.0, -1.0]) == 1
    assert math.isnan(bootstrap_mean([])[0])


def test_the_best_constant_length_is_right_for_most() -> None:
    asked = [Question(str(m), PAIR, f"{m} meters", "width_data") for m in (1.0, 1.3, 1.66, 5.0)]
    assert best_constant(asked) == 3


def test_the_best_constant_choice_may_be_a_place_in_the_question() -> None:
    def which(first: int, second: int, true: int) -> Question:
        text = f"Between Region [{first}] and Region [{second}], which one is wider?"
        return Question(f"{first}-{second}", text, f"Region [{true}] is wider.", "wide_choice")

    numbered_by_picture = [which(0, 1, 0), which(2, 3, 2), which(5, 1, 5), which(4, 0, 0)]
    assert best_constant(numbered_by_picture) == 3, "the one that is named first"
    assert best_constant([which(0, 1, 0), which(1, 0, 0), which(0, 2, 0)]) == 3, "Region [0]"


def test_categories() -> None:
    assert [is_category(name) for name in ("tall_choice", "direction", "tall_data", "choice", "")] == [
        *(True, True, False, False, False)
    ]
