"""Which direction on the clock an answer asserts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from theworld.evaluation.conclude import Claim, conclude
from theworld.evaluation.lengths import digits_for_words
from theworld.evaluation.statements import Statement, statements

HOURS = 12
HOUR = r"(?:1[0-2]|0?[1-9])(?::[0-5]\d)?"
CLOCK = re.compile(
    rf"(?<![\d.:])(?:(?P<first>{HOUR})(?:\s*o'? ?clock)?\s*(?:-|to|and|or)\s*)?"
    rf"(?P<last>{HOUR})(?:\s*-?\s*(?:o'? ?clock)|(?P<colon>(?<=:\d\d))(?!\d))",
    re.I,
)
NOT = re.compile(r"\b(?:not|isn't|never)\b[^,;]*$", re.I)
BARE = re.compile(rf"\W*({HOUR})\W*")


def hours(first: str, last: str | None = None) -> float:
    """An hour, 0 to 12, or the middle of two the short way round."""
    hour, _, minute = first.partition(":")
    start = int(hour) % HOURS + int(minute or 0) / 60
    if last is None:
        return start
    return (start + turn(hours(last), start) / 2) % HOURS


def turn(to: float, start: float) -> float:
    """Hours from one direction to another the short way round, -6 to 6."""
    return (to - start + HOURS / 2) % HOURS - HOURS / 2


def asserted_hour(answer: str, regions: Sequence[int]) -> float | None:
    """The hour at which an answer sees the second region from the first, 0 to 12; None: none, or two different ones."""
    claims: list[Claim[float]] = []
    for statement in statements(answer, regions):
        claims += claims_of_hour(statement, regions)
    return conclude(claims, lambda first, second: abs(turn(first, second)) < 0.5)


def claims_of_hour(statement: Statement, regions: Sequence[int]) -> list[Claim[float]]:
    """Hours that a statement gives for the question's direction, not for the way back."""
    claims = []
    for clause in statement.clauses():
        clause = digits_for_words(clause)
        if re.search(rf"R{regions[0]}\b.*\bfrom R{regions[1]}\b", clause):
            continue
        for found in CLOCK.finditer(clause):
            if not NOT.search(clause[: found.start()]):
                value = hours(found["first"], found["last"]) if found["first"] else hours(found["last"])
                claims.append(Claim(value, marked=statement.marked))
    bare = BARE.fullmatch(statement.text)
    if bare and statement.marked:
        claims.append(Claim(hours(bare[1]), marked=True))
    return claims
