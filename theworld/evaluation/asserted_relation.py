"""Which of two regions an answer says is higher, nearer, bigger, ..., and whether it says yes or no."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from theworld.evaluation.aliases import aliases, with_regions
from theworld.evaluation.conclude import DIRECT, WEAK, Claim, conclude
from theworld.evaluation.statements import ELIDED, Statement, statements

NEITHER = -1
"""The answer that both are alike."""

PLACE = (
    r"(?:corner|half|part|portion|section|area|edge|end|side)\b(?! of R)"
    r"|of the (?:image|frame|picture|photo|scene|room)"
)


def sideways(side: str) -> str:
    """Words that place something to the left or right; "turn right" and "right behind" do not."""
    return (
        rf"{side}(?=[- ]?(?:side|hand|most|ward|of|edge|half|part|corner))|{side}most|R\d's {side}"
        r"|(?:to|on|at|towards?|more|further|far) (?:the |its |R\d's )?(?:far |more )?"
        rf"{side}(?! (?:behind|next|above|below|in front))"
    )


COMPARATIVES: dict[str, tuple[tuple[int, str], ...]] = {
    "vertical": (
        (1, r"above|over(?! R\d'?s? (?:by|with))|atop|on top of|higher|highest|uppermost|upper|top(?:most)?"),
        (-1, r"below|under|underneath|beneath|lower|lowest|bottom(?:most)?|lowermost"),
    ),
    "side": ((1, sideways("right")), (-1, sideways("left"))),
    "depth": (
        (
            1,
            r"behind|in (?:the )?back of|less close|as far"
            r"|(?:further|farther|more distant|furthest|farthest|most distant|not as close)"
            r"(?! (?:to the )?(?:left|right|up|down|above|below))",
        ),
        (
            -1,
            r"in front of|in front|closer|closest|nearer|nearest|less distant|less far|not as (?:far|distant)"
            r"|before(?= R)|as (?:close|near)",
        ),
    ),
}
"""Axis -> words for more and for less of it."""

GREATER = (
    r"greater|larger|largest|bigger|biggest|more|higher|highest|exceed\w*|surpass\w*|outsize\w*|as (?:large|big|great)"
)
LESSER = r"less|lesser|smaller|smallest|lower|fewer|falls? short|least|tiniest|tinier|as (?:small|little)"
OWN_WORDS = {
    "size": ("", ""),
    "width": (
        r"wider|widest|broader|broadest|as (?:wide|broad)",
        r"thinner|thinnest|narrower|narrowest|slimmer|as (?:thin|narrow)",
    ),
    "height": (r"taller|tallest|as tall", r"shorter|shortest|as short"),
}
NOUNS = {
    "height": re.compile(r"\b(?:height|vertical (?:size|extent|dimension))\b", re.I),
    "width": re.compile(r"\b(?:width|horizontal (?:size|extent|dimension))\b", re.I),
    "size": re.compile(r"\b(?:size|space|area|volume|bulk|dimensions)\b", re.I),
}
NO_SIZE = re.compile(r"\b(?:distant|distance|to the (?:left|right)|close|far|up|down|likely|detailed)\b", re.I)
EQUAL = re.compile(r"\b(?:same|equal(?:ly)?|identical|equivalent|level with|neither)\b", re.I)
NEGATION = re.compile(
    r"\bnot\b|n't\b|\bnever\b|\bfails? to\b|\bno (?=taller|shorter|wider|bigger|larger|smaller)", re.I
)
DEGREE = re.compile(
    r"\bnot (?:only|significantly|much|by much|necessarily|substantially|considerably|drastically|that)\b", re.I
)
OF_ANOTHER_THING = re.compile(r"(?:above|over|on top of|below|under|underneath|beneath|behind|in front of)$", re.I)
"""Compares with what follows, so that "behind the couch" says nothing of the two regions."""
UNTRUE = re.compile(r"\b(?:not (?:true|correct|the case)|false|incorrect|untrue) that\b", re.I)
COMPARED = re.compile(
    r"\b(?:as |when )?(?:compared|relative|in comparison|in relation|with respect) (?:to|with) (?:that of )?R\w(?:'s)?",
    re.I,
)

YES = re.compile(
    r"^(?:yes|yeah|yep|yup|correct|indeed|true|affirmative|absolutely|certainly|definitely|of course|sure"
    r"|(?:that|it|this)(?: i|')s (?:true|correct|right)|it (?:is|does|appears so|seems so))$|\byes\b|\bindeed\b",
    re.I,
)
NO = re.compile(
    r"^(?:no|nope|incorrect|false|negative|wrong|untrue|not (?:at all|really|quite|true|correct)|absolutely not"
    r"|(?:that|it|this)(?: i|')s (?:false|incorrect|wrong|not (?:true|correct|right|the case))"
    r"|it (?:is not|isn't|does not|doesn't)|no it (?:is not|isn't|does not|doesn't))$|\b(?:is|answer|so) no$",
    re.I,
)
NODS = re.compile(
    r"^(?:correct|true|right|that is (?:true|correct|right)|that's (?:true|correct|right)|it is true)$", re.I
)
Named = Mapping[int, set[str]]
Topic = TypeVar("Topic", int, "int | None")
BARE_CHOICE = re.compile(r"\W*(?:(not )?(?:the answer is|it is|it's|is)\s+)?(?:the )?R(\d+)\W*", re.I)


@dataclass(frozen=True)
class Comparison:
    """``first`` is more (1) or less (-1) than ``second`` on the axis asked; end NEITHER's 0: they are alike."""

    first: int
    second: int
    end: int
    strength: int


def pattern_of(axis: str, clause: str) -> list[tuple[int, str]]:
    """Words that compare on this axis in a clause."""
    if axis in COMPARATIVES:
        # "A greater height", "lower in size" compare sizes, not places.
        is_size = axis == "vertical" and any(noun.search(clause) for noun in NOUNS.values())
        return [] if is_size else list(COMPARATIVES[axis])
    more, less = OWN_WORDS[axis]
    noun = next((name for name, words in NOUNS.items() if words.search(clause)), None)
    if noun == axis:
        return [(1, join(more, GREATER)), (-1, join(less, LESSER))]
    if noun is None and axis == "size" and not NO_SIZE.search(clause):
        return [(1, r"larger|largest|bigger|biggest|as (?:large|big)"), (-1, r"smaller|smallest|tinier|as small")]
    return [(1, more), (-1, less)] if more else []


def join(*patterns: str) -> str:
    """One pattern of several; empty ones left out."""
    return "|".join(pattern for pattern in patterns if pattern)


def compare(clause: str, axis: str, regions: Sequence[int], implied: int | None) -> Comparison | None:
    """What a clause says of two regions on an axis.

    Args:
        clause: with regions as ``R0``.
        axis: as in :data:`theworld.evaluation.questions.RELATIONS`.
        regions: the two of the question, in its order.
        implied: the region that a clause speaks of that names none; None: such a clause says nothing.
    """
    clause = COMPARED.sub("", clause)
    if DEGREE.search(clause):
        return None
    patterns = pattern_of(axis, clause)
    found = [(end, match) for end, words in patterns for match in re.finditer(rf"\b(?:{words})(?!\w)", clause, re.I)]
    if not found:
        same = EQUAL.search(clause)
        about = NOUNS[axis].search(clause) if axis in NOUNS else re.search(r"level|height|distance|side|depth", clause)
        is_same = same and about and not NEGATION.search(clause)
        return Comparison(regions[0], regions[1], 0, DIRECT) if is_same else None
    end, word = min(found, key=lambda item: (item[1].start(), -item[1].end()))
    rest = clause[word.end() :]
    if (
        OF_ANOTHER_THING.search(word[0])
        and re.match(r"\s+(?:the|an?|its|their)\s", rest)
        and not re.search(r"R\d", rest)
    ):
        return None
    pair = mentioned(clause, word, regions, implied)
    if pair is None:
        return None
    negations = len(NEGATION.findall(clause[: word.end()])) + (1 if UNTRUE.search(clause) else 0)
    if UNTRUE.search(clause):
        negations -= len(re.findall(r"\bnot (?=true|correct|the case)", clause, re.I))
    if word[0].lower().startswith("as ") and negations % 2 == 0:
        return Comparison(*pair, 0, DIRECT)  # "as tall as"
    if negations % 2 and not word[0].lower().startswith("not "):
        end = -end
    # "On the left side" places one region in the picture; "more on the left side" compares.
    is_place = re.match(rf"(?:most|ward)?[- ]*(?:{PLACE})", clause[word.end() :], re.I) is not None
    is_place = is_place and not re.search(r"\b(?:more|further|farther) $", clause[: word.start()], re.I)
    return Comparison(*pair, end, WEAK if is_place else DIRECT)


def mentioned(clause: str, word: re.Match[str], regions: Sequence[int], implied: int | None) -> tuple[int, int] | None:
    """The region that a clause compares, and the one that it is compared with."""
    before = [int(number) for number in re.findall(r"R(\d+)", clause[: word.start()])]
    before = [number for number in before if number in regions]
    inside = [int(number) for number in re.findall(r"R(\d+)", word[0])]
    after = [(found.start(), int(found[1])) for found in re.finditer(r"R(\d+)", clause[word.end() :])]
    after = [(place, number) for place, number in after if number in regions]
    if inside:
        after = [(0, inside[0]), *after]
    if before:
        subject = before[-1]
    elif after:
        place, number = after[0]
        # "Positioned higher is R1" has its subject behind, "is higher than R1" has not.
        is_inverse = re.search(r"\b(?:is|are|would be|being|one)\s*(?:the\s+)?$", clause[word.end() :][:place], re.I)
        subject = number if is_inverse and not inside else other(number, regions)
    elif implied is not None:
        subject = implied
    else:
        return None
    return subject, other(subject, regions)


def other(region: int, regions: Sequence[int]) -> int:
    """The question's other region."""
    return regions[1] if region == regions[0] else regions[0]


def asserted_truth(answer: str, axis: str, end: int, regions: Sequence[int]) -> bool | None:
    """Whether an answer says yes to "Is the first region more (end 1) or less (-1) than the second?".

    Returns:
        None where it says neither or both.
    """
    claims: list[Claim[bool]] = []
    topic, named = regions[0], aliases(answer, regions)
    for statement in statements(answer, regions):
        found = truths(statement, named, axis, end, regions, topic, is_first=not claims)
        claims += found or refusal(statement)
        topic = topic_of(statement, regions, topic)
    return conclude(claims, lambda first, second: first == second)


def compare_by_name(
    clause: str, named: Named, axis: str, regions: Sequence[int], implied: int | None
) -> Comparison | None:
    """As :func:`compare`, also where a clause calls the regions by other words; that counts if nothing else is said."""
    renamed = with_regions(clause, named)
    comparison = compare(renamed, axis, regions, implied)
    return comparison if renamed == clause or comparison is None else replace(comparison, strength=WEAK)


def refusal(statement: Statement) -> list[Claim[Any]]:
    """The conclusion that it cannot be told, if the statement is that."""
    return [Claim(None, marked=True)] if statement.marked and statement.refuses else []


def topic_of(statement: Statement, regions: Sequence[int], before: Topic) -> int | Topic:
    """The region that "it" means in the next statement: the first that this one names, else the one before."""
    named = named_in(statement.text, regions)
    return named[0] if named else before


def named_in(text: str, regions: Sequence[int]) -> list[int]:
    """The question's regions that a text names, in its order."""
    return [int(number) for number in re.findall(r"R(\d+)", text) if int(number) in regions]


def implied_region(clauses: Sequence[str], place: int, topic: int | None, regions: Sequence[int]) -> int | None:
    """The region that a clause speaks of without its name: "it is higher", "which is nearer", "but not as wide"."""
    clause = clauses[place]
    named = named_in(" ".join(clauses[:place]), regions)
    if re.match(r"(?:which|that|not)\b", clause, re.I) and place:
        return named[-1] if named else topic
    if re.match(r"(?:it|this|that)\b", clause, re.I):
        return named[0] if named else topic
    if re.match(r"(?:is|are|has|does)\b", clause, re.I) and place:  # "... and is to the left of it"
        return next((own[0] for part in reversed(clauses[:place]) if (own := named_in(part, regions))), topic)
    return None


def truths(
    statement: Statement,
    named: Named,
    axis: str,
    end: int,
    regions: Sequence[int],
    topic: int,
    is_first: bool,
) -> list[Claim[bool]]:
    """Every yes and no in a statement, said or implied by a comparison."""
    claims = []
    clauses = statement.clauses()
    for place, clause in enumerate(clauses):
        if not is_first and len(clauses) == 1 and NODS.match(clause):
            continue  # "Correct." behind a claim confirms the claim.
        bare = statement.alone and len(clauses) == 1
        if YES.search(clause):
            claims.append(Claim(True, marked=statement.marked or (bare and clause.lower() == "yes")))
        elif NO.search(clause):
            claims.append(Claim(False, marked=statement.marked or (bare and clause.lower() == "no")))
        implied = implied_region(clauses, place, topic, regions)
        if implied is None and place == 0 and is_first and ELIDED in clause:
            implied = regions[0]
        comparison = compare_by_name(clause, named, axis, regions, implied)
        if comparison is not None:
            asked = end if comparison.first == regions[0] else -end
            claims.append(Claim(comparison.end == asked, comparison.strength, statement.marked))
    return claims


def asserted_choice(answer: str, axis: str, end: int, regions: Sequence[int]) -> int | None:
    """Which region an answer says is the more (end 1) or less (-1) on an axis; :data:`NEITHER`: both are alike.

    Returns:
        None where it chooses none or both.
    """
    claims: list[Claim[int]] = []
    topic: int | None = None
    named = aliases(answer, regions)
    for statement in statements(answer, regions):
        claims += choices(statement, named, axis, end, regions, topic) or refusal(statement)
        topic = topic_of(statement, regions, topic)
    return conclude(claims, lambda first, second: first == second)


def choices(
    statement: Statement, named: Named, axis: str, end: int, regions: Sequence[int], topic: int | None
) -> list[Claim[int]]:
    """Every region that a statement chooses, by a comparison or by its name alone."""
    claims = []
    clauses = statement.clauses()
    for place, clause in enumerate(clauses):
        implied = implied_region(clauses, place, topic, regions)
        comparison = compare_by_name(clause, named, axis, regions, implied)
        if comparison is not None:
            chosen = comparison.first if comparison.end == end else comparison.second
            claims.append(Claim(NEITHER if comparison.end == 0 else chosen, comparison.strength, statement.marked))
            continue
        bare = BARE_CHOICE.fullmatch(clause)
        is_whole = statement.alone and BARE_CHOICE.fullmatch(statement.text)
        if bare and place == 0 and int(bare[2]) in regions and (is_whole or statement.marked):
            chosen = int(bare[2])
            claims.append(Claim(other(chosen, regions) if bare[1] else chosen, marked=True))
    return claims
