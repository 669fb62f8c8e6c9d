"""Two models on the same questions: who is right where the other is not, and is that more than chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from theworld.errors import UserError
from theworld.evaluation.intervals import bootstrap_mean, mcnemar, sign_flips
from theworld.evaluation.questions import DIRECTION
from theworld.evaluation.score_table import Scored, groups_of, in_columns

ALIKE = 95.0
"""Percent of identical answers above which two models are said to be one."""


@dataclass(frozen=True)
class Pairing:
    """Two models on one group of questions; shares in percent."""

    name: str
    questions: int
    first: float
    second: float
    low: float
    """95 % interval of second minus first."""
    high: float
    only_first: int
    only_second: int
    p: float
    """McNemar's exact test."""
    error_difference: float | None
    """Mean of second's minus first's error, where both assert a length (hours for directions)."""
    error_p: float | None


def compare_models(first: Sequence[Scored], second: Sequence[Scored]) -> list[Pairing]:
    """A line for each group of questions.

    Raises:
        UserError: they answered different questions.
    """
    if [one.question for one in first] != [one.question for one in second]:
        raise UserError("the two models did not answer the same questions")
    firsts, seconds = groups_of(first), groups_of(second)
    return [pair_up(name, group, seconds[name]) for name, group in firsts.items()]


def pair_up(name: str, first: Sequence[Scored], second: Sequence[Scored]) -> Pairing:
    """One group of questions."""
    pairs = list(zip(first, second, strict=True))
    differences = [100.0 * (b.is_right - a.is_right) for a, b in pairs]
    only_first = sum(a.is_right and not b.is_right for a, b in pairs)
    only_second = sum(b.is_right and not a.is_right for a, b in pairs)
    errors = [
        b.verdict.error - a.verdict.error
        for a, b in pairs
        if a.verdict.error is not None
        and b.verdict.error is not None
        and (name == DIRECTION or a.question.category != DIRECTION)
    ]
    low, high = bootstrap_mean(differences)
    return Pairing(
        name=name,
        questions=len(pairs),
        first=fmean(100.0 * a.is_right for a, _ in pairs),
        second=fmean(100.0 * b.is_right for _, b in pairs),
        low=low,
        high=high,
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second),
        error_difference=fmean(errors) if errors else None,
        error_p=sign_flips(errors) if errors else None,
    )


def identical_share(first: Sequence[Scored], second: Sequence[Scored]) -> float:
    """Percent of the questions that both answer in the same words, empty answers left out."""
    pairs = [(a.answer.strip(), b.answer.strip()) for a, b in zip(first, second, strict=True)]
    said = [(a, b) for a, b in pairs if a or b]
    return 100.0 * sum(a == b for a, b in said) / len(said) if said else 100.0


def show_pairings(pairings: Sequence[Pairing]) -> str:
    """The comparison as text for a terminal."""
    rows: list[tuple[str, ...]] = [
        ("", "n", "first %", "second %", "difference 95 %", "only first", "only second", "p", "error", "p")
    ]
    for pair in pairings:
        rows.append(
            (
                pair.name,
                str(pair.questions),
                f"{pair.first:.1f}",
                f"{pair.second:.1f}",
                f"{pair.low:+.1f} to {pair.high:+.1f}",
                str(pair.only_first),
                str(pair.only_second),
                f"{pair.p:.3g}",
                "-" if pair.error_difference is None else f"{pair.error_difference:+.2f}",
                "-" if pair.error_p is None else f"{pair.error_p:.3g}",
            )
        )
    return in_columns(rows)
