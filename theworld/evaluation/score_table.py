"""The table of one model's answers: per category and over all, with interval, blind floor, undecided and empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from theworld.errors import UserError
from theworld.evaluation.asserted_hour import turn
from theworld.evaluation.intervals import bootstrap_mean
from theworld.evaluation.questions import DIRECTION, LENGTHS, Question
from theworld.evaluation.score import HOUR_TOLERANCE, TOLERANCE, Verdict, reference_value, score

OVERALL, QUALITATIVE, QUANTITATIVE = "overall", "qualitative", "quantitative"


@dataclass(frozen=True)
class Scored:
    """One question with an answer and what became of it."""

    question: Question
    answer: str
    verdict: Verdict

    @property
    def is_right(self) -> bool:
        """Decided, and right."""
        return self.verdict.right is True

    def as_row(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "id": self.question.id,
            "question": self.question.text,
            "ground_truth": self.question.reference,
            "prediction": self.answer,
            "category": self.question.category,
            "verdict": self.verdict.right,
            "asserted": self.verdict.asserted,
            "error": self.verdict.error,
        }


@dataclass(frozen=True)
class Line:
    """One line of the table; shares in percent of all its questions."""

    name: str
    questions: int
    accuracy: float
    low: float
    """95 % interval of the accuracy, by resampling the questions."""
    high: float
    of_decided: float | None
    """Accuracy among the decided; None: none is."""
    blind_floor: float
    """Accuracy of the best constant answer for each category."""
    undecided: int
    empty: int
    error: float | None
    """Mean absolute relative error of the lengths that were asserted; hours for directions."""


def score_all(questions: Sequence[Question], answers: Mapping[str, str]) -> list[Scored]:
    """Every question with the verdict on its answer; one without an answer has an empty one.

    Raises:
        UserError: an answer to no question, no question at all, or a reference that cannot be read.
    """
    if not questions:
        raise UserError("there is no question to score")
    known = {question.id for question in questions}
    strange = [key for key in answers if key not in known]
    if strange:
        raise UserError(f"{len(strange)} answers belong to no question, the first is {strange[0]!r}")
    texts = [(question, answers.get(question.id, "")) for question in questions]
    return [Scored(question, answer, score(question, answer)) for question, answer in texts]


def groups_of(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Name -> answers: overall, qualitative, quantitative, then every category that occurs, in the order of names."""
    groups = {
        OVERALL: list(scored),
        QUALITATIVE: [one for one in scored if not one.question.is_quantitative],
        QUANTITATIVE: [one for one in scored if one.question.is_quantitative],
    }
    for category in sorted({one.question.category for one in scored}):
        groups[category] = [one for one in scored if one.question.category == category]
    return {name: group for name, group in groups.items() if group}


def best_constant(questions: Sequence[Question]) -> int:
    """How many questions of one category the best constant answer gets right."""
    truths = [reference_value(question) for question in questions]
    category = questions[0].category
    if category == DIRECTION:
        return max(sum(abs(turn(hour, truth)) <= HOUR_TOLERANCE for truth in truths) for hour in range(12))
    if questions[0].is_choice:
        # Where regions are numbered over the whole picture, "the one named first" is a better guess than any number.
        places = [question.regions.index(truth) for question, truth in zip(questions, truths, strict=True)]
        return max(*Counter(truths).values(), *Counter(places).values())
    if category not in LENGTHS:
        return max(Counter(truths).values())
    # The best length can be moved until it is the most that some reference allows.
    candidates = [(1 + TOLERANCE) * truth for truth in truths]
    slack = 1 + 1e-12
    return max(
        sum((1 - TOLERANCE) * truth <= length * slack and length <= (1 + TOLERANCE) * truth * slack for truth in truths)
        for length in candidates
    )


def make_line(name: str, group: Sequence[Scored]) -> Line:
    """The figures of a group of answers."""
    by_category: dict[str, list[Question]] = {}
    for one in group:
        by_category.setdefault(one.question.category, []).append(one.question)
    floor = sum(best_constant(questions) for questions in by_category.values())
    right = [100.0 * one.is_right for one in group]
    decided = [one for one in group if one.verdict.right is not None]
    # A direction's error is in hours, a length's relative: one mean for both would mean nothing.
    errors = [one for one in group if one.verdict.error is not None]
    of_lengths = [one for one in errors if one.question.category != DIRECTION] or errors
    low, high = bootstrap_mean(right)
    return Line(
        name=name,
        questions=len(group),
        accuracy=fmean(right),
        low=low,
        high=high,
        of_decided=100 * sum(one.is_right for one in decided) / len(decided) if decided else None,
        blind_floor=100 * floor / len(group),
        undecided=len(group) - len(decided),
        empty=sum(not one.answer.strip() for one in group),
        error=fmean(one.verdict.error or 0.0 for one in of_lengths) if of_lengths else None,
    )


def make_table(scored: Sequence[Scored]) -> list[Line]:
    """A line for each group of :func:`groups_of`."""
    return [make_line(name, group) for name, group in groups_of(scored).items()]


def report(scored: Sequence[Scored]) -> dict[str, Any]:
    """All of it as JSON: accuracies in percent by name, the table's lines, and a row for each question."""
    lines = {line.name: line for line in make_table(scored)}
    special = (OVERALL, QUALITATIVE, QUANTITATIVE)
    return {
        **{name: lines[name].accuracy if name in lines else None for name in special},
        "categories": {name: line.accuracy for name, line in lines.items() if name not in special},
        "questions": lines[OVERALL].questions,
        "undecided": lines[OVERALL].undecided,
        "empty": lines[OVERALL].empty,
        "blind_floor": lines[OVERALL].blind_floor,
        "table": [asdict(line) for line in lines.values()],
        "rows": [one.as_row() for one in scored],
    }


def from_report(content: Mapping[str, Any]) -> list[Scored]:
    """The answers of what :func:`report` gave, scored again.

    Raises:
        UserError: it is of another form.
    """
    try:
        rows = [
            (Question(row["id"], row["question"], row["ground_truth"], row["category"]), row["prediction"])
            for row in content["rows"]
        ]
    except (KeyError, TypeError) as error:
        raise UserError(f"no report of recipes/evaluate.py --json: {error}") from error
    return score_all([question for question, _ in rows], {question.id: answer for question, answer in rows})


def show_table(lines: Sequence[Line]) -> str:
    """The table as text for a terminal."""
    head = ("", "n", "right %", "95 %", "of decided", "blind floor", "undecided", "empty", "error")
    rows: list[tuple[str, ...]] = [head]
    for line in lines:
        rows.append(
            (
                line.name,
                str(line.questions),
                f"{line.accuracy:.1f}",
                f"{line.low:.1f}-{line.high:.1f}",
                "-" if line.of_decided is None else f"{line.of_decided:.1f}",
                f"{line.blind_floor:.1f}",
                str(line.undecided),
                str(line.empty),
                "-" if line.error is None else f"{line.error:.2f}",
            )
        )
    return in_columns(rows)


def in_columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
