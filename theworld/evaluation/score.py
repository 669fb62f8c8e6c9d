"""Is an answer right? The rules of SpatialRGPT-Bench, decided by what the answer asserts, without a model.

A distance or size is right within 25 % of the reference, a direction within one hour round the clock, all else when it
says what the reference says (SpatialRGPT, arXiv 2406.01584, section 5). An answer that asserts nothing, or two
different things, is undecided.
"""

from __future__ import annotations

from dataclasses import dataclass

from theworld.errors import UserError
from theworld.evaluation.asserted_hour import asserted_hour, turn
from theworld.evaluation.asserted_length import asserted_length
from theworld.evaluation.asserted_relation import asserted_choice, asserted_truth
from theworld.evaluation.questions import DIRECTION, LENGTHS, Question

TOLERANCE = 0.25
HOUR_TOLERANCE = 1.0


@dataclass(frozen=True)
class Verdict:
    """What became of one answer."""

    right: bool | None
    """None: undecided."""
    asserted: float | int | bool | None
    """What the answer asserts: metres, an hour (0 to 12), a region, yes or no."""
    error: float | None = None
    """Absolute relative error of a length, or hours of a direction."""


def reference_value(question: Question) -> float | int | bool:
    """What the reference says: metres, an hour, a region, or whether the question's relation holds.

    Raises:
        UserError: it says nothing that can be read.
    """
    if question.category in LENGTHS:
        length = asserted_length(question.reference, LENGTHS[question.category], question.regions)
        value = length.metres if length and length.metres and not length.bound else None
    else:
        # One reference says "No" and then what would be a yes: what comes first is the verdict.
        said_first = question.reference.partition(",")[0]
        value = next(
            (v for v in (asserted(question, text) for text in (question.reference, said_first)) if v is not None), None
        )
    if value is None:
        raise UserError(f"question {question.id!r}: its reference says nothing: {question.reference!r}")
    return value


def asserted(question: Question, answer: str) -> float | int | bool | None:
    """The hour, region, yes or no that an answer to such a question asserts; None: nothing, or two different things."""
    if question.category == DIRECTION:
        return asserted_hour(answer, question.regions)
    axis, end = question.relation
    decide = asserted_choice if question.is_choice else asserted_truth
    return decide(answer, axis, end, question.regions)


def score(question: Question, answer: str) -> Verdict:
    """Whether an answer is right.

    Raises:
        UserError: the question's reference says nothing that can be read.
    """
    truth = reference_value(question)
    if question.category in LENGTHS:
        return score_length(truth, answer, question)
    value = asserted(question, answer)
    if value is None:
        return Verdict(None, None)
    if question.category == DIRECTION:
        error = abs(turn(value, truth))
        return Verdict(error <= HOUR_TOLERANCE, value, error)
    return Verdict(value == truth, value)


def score_length(truth: float, answer: str, question: Question) -> Verdict:
    """The verdict on a length; a bound is wrong where it excludes all right values, and undecided where it does not."""
    length = asserted_length(answer, LENGTHS[question.category], question.regions)
    if length is None or length.metres is None:
        return Verdict(None, None)
    low, high = (1 - TOLERANCE) * truth, (1 + TOLERANCE) * truth
    if length.bound:
        excluded = length.metres < low if length.bound < 0 else length.metres > high
        return Verdict(False if excluded else None, None)
    return Verdict(low <= length.metres <= high, length.metres, abs(length.metres - truth) / truth)
