"""Which length an answer asserts of the region and dimension that were asked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from theworld.evaluation.aliases import GENERIC, aliases
from theworld.evaluation.conclude import DIRECT, LOOSE, WEAK, Claim, conclude
from theworld.evaluation.lengths import Length, digits_for_words, find_lengths
from theworld.evaluation.statements import CLAUSE_WITH_LABEL, Statement, statements

FOREIGN = -1
"""Of a thing that an answer names without saying that it is the region: counts if nothing else is measured."""
REFERENCE = re.compile(r"(?<!without a )(?<!scale )(?<!no )\breference", re.I)
"""The answer measures one thing by another."""
SAME = 0.1
"""Lengths that differ by less, relative to the larger, say the same."""

DIMENSIONS = {
    "height": re.compile(r"\b(?:height|tall|high|vertical(?:ly)?|vertical (?:size|extent|dimensions?))\b", re.I),
    "width": re.compile(r"\b(?:width|wide|horizontal(?:ly)?|across|radius|diameter|breadth)\b", re.I),
    "depth": re.compile(r"\b(?:depth|deep|long|length|thick|thickness)\b", re.I),
    "distance": re.compile(r"\b(?:distan\w+|apart|away|from|between|gap|separat\w+|far|close|space[ds]?)\b", re.I),
}
OTHER_AXIS = {
    "horizontal distance": re.compile(r"\bvertical", re.I),
    "vertical distance": re.compile(r"\bhorizon", re.I),
}
ANY_AXIS = re.compile(r"\b(?:vertical|horizontal)", re.I)
APPROXIMATE = re.compile(
    r"\b(?:about|approximately|approx|around|roughly|an?|estimated?|estimate|of|is|are|it|they|maybe|perhaps|probably"
    r"|likely|some|between|and|to|or|less|more|than|tall|wide|high|apart|away|height|width|distance|the|in)\b|[~:()\s.,=-]",
    re.I,
)
OWNER = (
    re.compile(r"\b(?:heights?|widths?|sizes?|lengths?|radius|diameter)\s+of\s+((?:\w+[ -]?){1,6})", re.I),
    re.compile(r"\b((?:[\w-]+ ){0,3}[\w-]+)'s (?:\w+ )?(?:height|width|size|length)\b", re.I),
    re.compile(r"\b((?:\w+ ){0,3}\w+) (?:height|width)s?\b", re.I),
    re.compile(
        r"^\W*((?:[\w-]+ ){0,6}?[\w-]+) (?:is|are|was|appears?|seems?|looks?|measures?|stands?|might|may|would)\b", re.I
    ),
    re.compile(r"^\W*((?:[\w-]+ ){0,4}[\w-]+)\s*[:=]", re.I),
    re.compile(r"^\W*(?:each|the|an?|most|standard|typical|average) ((?:[\w-]+ ){0,4}[\w-]+)\s*$", re.I),
)
PRONOUN = re.compile(r"(?:it|they|this|these)\b", re.I)
RECKONING = re.compile(r"=|\d[\w ]*\s[+/*]\s*\d|\d[\w ]*\s[+/*]\s*$")
RECKONING_STEP = re.compile(r"[+*/]|\d[\w ]*\s-\s")
SIDES = {"tall": "height", "high": "height", "wide": "width", "across": "width", "deep": "depth", "long": "depth"}
SIDE_BEHIND = re.compile(rf"\s*(?:\([^()]*\)\s*)?(?:in )?({'|'.join(SIDES)})\b", re.I)
GOES_ON = re.compile(r"(?:and |which |that )?(?:is|are|appears?|seems?|looks?|measures?|stands?|likely|it)\b", re.I)
PARTNER = re.compile(
    r"\b(?:from|between|and|to) (?:the|an?|its) ([a-z][a-z ]*?)(?=$|[.,)(]| is\b| are\b| and\b| to\b| appears?\b)", re.I
)


def asserted_length(answer: str, dimension: str, regions: Sequence[int]) -> Length | None:
    """The length that an answer concludes.

    Args:
        answer: as the model wrote it.
        dimension: a value of :data:`theworld.evaluation.questions.LENGTHS`.
        regions: numbers in the question; the first is the one asked for a height or width.

    Returns:
        None where it asserts none, only pixels, or two different ones.
    """
    is_distance = dimension.endswith("distance")
    named = aliases(answer, regions)
    known = set().union(*(named[region] for region in regions[: 2 if is_distance else 1]))
    is_compared = REFERENCE.search(answer) is not None
    claims: list[Claim[Length]] = []
    topic = ""
    for statement in statements(answer, regions):
        if not PRONOUN.match(statement.text):
            topic = statement.text if re.search(r"R\d", statement.text) or is_foreign(statement.text, known) else ""
        found = claims_of(statement, dimension, regions[0], known, topic)
        if not found and statement.marked and statement.refuses:
            found = [Claim(None, marked=True)]
        claims += [claim for claim in found if claim.strength != FOREIGN or not is_compared]
    exact = [claim for claim in claims if claim.value is None or not claim.value.bound]
    concluded = conclude(exact if any(claim.value for claim in exact) else claims, same_length)
    return None if concluded is None or concluded.metres is None else concluded


def same_length(first: Length, second: Length) -> bool:
    """Whether two lengths are one answer: both in pixels, or nearly equal."""
    if first.metres is None or second.metres is None:
        return first.metres is second.metres
    return first.bound == second.bound and abs(first.metres - second.metres) <= SAME * max(first.metres, second.metres)


def claims_of(statement: Statement, dimension: str, region: int, known: set[str], topic: str) -> list[Claim[Length]]:
    """What a statement asserts of the dimension asked; ``topic``: the statement that says what "it" is."""
    claims, subject = [], topic if PRONOUN.match(statement.text) and not dimension.endswith("distance") else ""
    for clause in statement.clauses(CLAUSE_WITH_LABEL):
        clause = digits_for_words(clause)
        if subject and GOES_ON.match(clause):
            clause = f"{subject} {clause}"  # "The person is sitting, and appears to be 6 feet tall": of the person.
        lengths = find_lengths(clause)
        if not lengths:
            subject = clause
            continue
        if RECKONING.search(clause):
            last, equals = lengths[-1], clause.rfind("=")
            is_result = 0 <= equals < last.start and not RECKONING_STEP.search(clause[equals + 1 :])
            lengths = [last] if is_result else []
        bare = statement.alone and not APPROXIMATE.sub("", without(clause, lengths))
        for length in lengths:
            strength = strength_of(clause, length, dimension, region, known, subject)
            if strength is not None:
                reckoned = "=" in clause and not statement.marked
                claims.append(Claim(length, WEAK if reckoned else strength, statement.marked or bare))
    # Where a statement gives metres too, its pixels are how they were found.
    return [claim for claim in claims if claim.value and claim.value.metres] or claims[:1]


def without(clause: str, lengths: Sequence[Length]) -> str:
    """The clause with its lengths cut out."""
    for length in reversed(lengths):
        clause = clause[: length.start] + clause[length.end :]
    return clause


def strength_of(clause: str, length: Length, dimension: str, region: int, known: set[str], subject: str) -> int | None:
    """How directly a length in a clause speaks of what was asked; None: it is another thing's.

    Args:
        clause: with regions as ``R0``.
        length: where it stands in the clause.
        dimension: what was asked.
        region: the region asked for a height or width.
        known: other words for it (for a distance, for either region).
        subject: an earlier clause of the same sentence that names a region; it owns what names nothing.
    """
    before, behind = clause[: length.start], clause[length.end :]
    own = SIDE_BEHIND.match(behind)  # "15 cm wide and 10 cm high"
    named = (
        {SIDES[own[1].lower()]}
        if own
        else {name for name, pattern in DIMENSIONS.items() if pattern.search(without(clause, [length]))}
    )
    if dimension.endswith("distance"):
        other = OTHER_AXIS.get(dimension, ANY_AXIS)
        if other.search(clause) or ("distance" not in named and (named & {"height", "width", "depth"})):
            axis = dimension.partition(" ")[0]
            if other.search(clause) or not re.search(rf"\b{axis}", clause, re.I):
                return None
        if "distance" in named:
            return strength_of_distance(clause, length, known)
        return None if is_foreign(before, known) else LOOSE if before.strip() else DIRECT
    named -= {"distance"}
    if named and dimension not in named:
        return None
    mentioned = re.findall(r"R(\d+)", before) or re.findall(r"R(\d+)", clause[length.end :])
    if not mentioned and not named:
        mentioned = re.findall(r"R(\d+)", subject)
    if mentioned:
        return DIRECT if int(mentioned[-1]) == region else None
    if is_foreign(before, known):
        return FOREIGN if named and not known and not mentioned else None
    return DIRECT if named or re.search(r"\bit\b", before, re.I) or not before.strip() else LOOSE


def strength_of_distance(clause: str, length: Length, known: set[str]) -> int | None:
    """How directly a clause that speaks of a distance speaks of that between the two regions."""
    named = len(set(re.findall(r"R\d+", clause)))
    if named == 1:
        partners = [set(re.findall(r"[a-z]+", found[1].lower())) - GENERIC for found in PARTNER.finditer(clause)]
        if any(words and not words & known for words in partners):
            return None  # "between R1 and the monitor", "from the curb"
    return LOOSE if named == 0 and is_foreign(clause[: length.start], known) else DIRECT


def is_foreign(before: str, known: set[str]) -> bool:
    """Whether the words before a length make it the length of another thing."""
    for pattern in OWNER:
        for found in pattern.finditer(before):
            words = set(re.findall(r"[a-z]+", found[1].lower())) - GENERIC
            if words and not words & known:
                return True
    return False
