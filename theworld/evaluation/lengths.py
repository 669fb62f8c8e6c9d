"""Lengths in a text, in any unit and form, in metres."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

IN_AS_UNIT = r"in(?=\s*(?:$|[.,;:)(\]]|tall|wide|high|long|apart|away|from|in |to |or |and |x |\*))"
UNITS: dict[str, float | None] = {
    "millimeters|millimetres|millimeter|millimetre|mm": 0.001,
    "centimeters|centimetres|centimeter|centimetre|cms|cm": 0.01,
    "decimeters|decimetres|decimeter|decimetre|dm": 0.1,
    "kilometers|kilometres|kilometer|kilometre|km": 1000.0,
    "meters|metres|meter|metre|mtrs|m": 1.0,
    rf"inches|inch|\"|''|{IN_AS_UNIT}": 0.0254,
    "feet|foot|ft|'": 0.3048,
    "yards|yard|yds|yd": 0.9144,
    "miles|mile": 1609.344,
    "pixels|pixel|px": None,
}
"""Names of a unit -> metres; None: it is no length of the scene."""

WORDS = {
    **{
        word: number
        for number, word in enumerate(
            ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
        )
    },
    **{
        word: 11 + number
        for number, word in enumerate(["eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"])
    },
    **{word: 17 + number for number, word in enumerate(["seventeen", "eighteen", "nineteen"])},
    **{
        word: 20 + 10 * n
        for n, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"])
    },
}
WORD = "|".join(sorted(WORDS, key=len, reverse=True))
NUMBER_WORDS = re.compile(
    rf"\b(?P<first>{WORD})\b(?:[\s-]+(?P<second>{WORD})\b)?(?:\s+(?P<hundred>hundred)\b)?"
    rf"(?:\s+(?:and\s+)?(?P<half>a half|a quarter)\b)?(?:\s+point\s+(?P<point>(?:{WORD})\b(?:\s+(?:{WORD})\b)*))?",
    re.IGNORECASE,
)
SOME = {"a hundred": "100", "half an": "0.5", "half a": "0.5", "a few": "3", "a couple of": "2", "a couple": "2"}
SOME_WORDS = re.compile(rf"\b(?:{'|'.join(SOME)})\b", re.IGNORECASE)

NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+,\d{1,2}(?!\d)|\d+\s+\d+/\d+|\d+/\d+|\d*\.?\d+|an?(?=\s))"
ANY_UNIT = "|".join(f"(?P<u{place}>{names})" for place, names in enumerate(UNITS))
QUANTITY = re.compile(rf"(?<![\w.,/]){NUMBER}\s*-?\s*(?:{ANY_UNIT})(?![a-z])", re.IGNORECASE)
RANGE_START = re.compile(
    rf"(?<![\w.,/])(?P<number>{NUMBER})\s*(?P<joint>-|to|or|and)\s*(?:about |around )?$", re.IGNORECASE
)
JOINT = re.compile(r"\s*(?:(?P<range>-|to|or|and)|(?P<plus>and|,)?)\s*", re.IGNORECASE)
HEDGES = r"(?:\s*(?:about|approximately|around|roughly|some|approx|~|an? (?:distance|height|width) of))*\s*~?\s*$"
BELOW = re.compile(
    r"\b(?:(?:less|fewer|shorter|smaller|narrower|closer) than|under|below|at most|up to|within|no more than)" + HEDGES,
    re.IGNORECASE,
)
ABOVE = re.compile(
    r"\b(?:(?:more|greater|taller|wider|longer|higher|larger|bigger) than|over|above|at least|beyond|exceed\w*)"
    + HEDGES,
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Length:
    """A length and where it stands in its text."""

    metres: float | None
    """None: in pixels."""
    start: int
    end: int
    unit: float | None = None
    bound: int = 0
    """-1: less than that, 1: more than that."""


Join = Callable[[str, Length, str, Length], "Length | None"]


def digits_for_words(text: str) -> str:
    """Numbers in words as digits: "one and a half" is 1.5, "a few" 3."""

    def number(found: re.Match[str]) -> str:
        value = float(WORDS[found["first"].lower()])
        if found["second"]:
            second = WORDS[found["second"].lower()]
            if value < 20 or value % 10 or second > 9:
                return found[0]
            value += second
        value *= 100 if found["hundred"] else 1
        value += {None: 0, "a half": 0.5, "a quarter": 0.25}[found["half"] and found["half"].lower()]
        if found["point"]:
            return f"{value:g}." + "".join(str(WORDS[word.lower()]) for word in found["point"].split())
        return f"{value:g}"

    return NUMBER_WORDS.sub(number, SOME_WORDS.sub(lambda found: SOME[found[0].lower()], text))


def value_of(number: str) -> float:
    """A number as people write it: ``1,020``, ``1,5``, ``1 1/2``, ``a``."""
    if number.lower() in ("a", "an"):
        return 1.0
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", number):
        return float(number.replace(",", ""))
    whole, _, fraction = number.replace(",", ".").rpartition(" ")
    if "/" in fraction:
        above, below = fraction.split("/")
        part = float(above) / float(below) if float(below) else 0.0
        return float(whole or 0) + part
    return float(fraction)


def find_lengths(text: str) -> list[Length]:
    """Lengths in a text whose numbers are digits (:func:`digits_for_words`), in its order.

    Feet and inches that belong together are one length, a range is its middle, and what stands in brackets behind a
    length and says the same in another unit is left out.
    """
    found: list[Length] = []
    for match in QUANTITY.finditer(text):
        unit = next(factor for place, factor in enumerate(UNITS.values()) if match[f"u{place}"])
        number = re.match(NUMBER, match[0], re.IGNORECASE)
        assert number is not None
        found.append(with_range_start(text, value_of(number[0]), unit, match.start(), match.end()))
    for join in (as_sum, as_range, as_restated):
        found = joined(text, found, join)
    return [replace(length, bound=bound_of(text[: length.start])) for length in found]


def joined(text: str, lengths: list[Length], join: Join) -> list[Length]:
    """Neighbours that are one length in one."""
    kept: list[Length] = []
    for length in lengths:
        whole = None
        if kept and kept[-1].metres is not None and length.metres is not None:
            whole = join(text[: kept[-1].start], kept[-1], text[kept[-1].end : length.start], length)
        if whole is None:
            kept.append(length)
        else:
            kept[-1] = whole
    return kept


def with_range_start(text: str, value: float, unit: float | None, start: int, end: int) -> Length:
    """The middle where another number and a hyphen or "to" stand before: ``15-20 feet``."""
    before = RANGE_START.search(text[:start])
    if before and (before["joint"].lower() != "and" or re.search(r"\bbetween\s+$", text[: before.start()], re.I)):
        value, start = (value_of(before["number"]) + value) / 2, before.start()
    return Length(None if unit is None else value * unit, start, end, unit)


def as_sum(before: str, first: Length, between: str, second: Length) -> Length | None:
    """5 feet 6 inches."""
    pair = (first.unit, second.unit)
    if pair in ((0.3048, 0.0254), (1.0, 0.01), (0.9144, 0.3048)) and re.fullmatch(r"\s*(?:and|,|-)?\s*", between, re.I):
        return replace(first, metres=(first.metres or 0) + (second.metres or 0), end=second.end)
    return None


def as_range(before: str, first: Length, between: str, second: Length) -> Length | None:
    """10 inches to 1 foot: the middle."""
    is_between = re.search(r"\bbetween\s+$", before, re.I)
    if re.fullmatch(r"\s*(?:-|to|or)\s*", between, re.I) or (is_between and re.fullmatch(r"\s*and\s*", between, re.I)):
        return replace(first, metres=((first.metres or 0) + (second.metres or 0)) / 2, end=second.end)
    return None


def as_restated(before: str, first: Length, between: str, second: Length) -> Length | None:
    """6 feet (1.8 m): the first."""
    restated = re.fullmatch(r"\s*(?:\(|/|=|,? or)\s*(?:about|approximately|around|roughly|~|or)?\s*", between, re.I)
    size = first.metres or 0
    return replace(first, end=second.end) if restated and abs(size - (second.metres or 0)) <= 0.15 * size else None


def bound_of(before: str) -> int:
    """Whether the words before a length make it a bound."""
    return -1 if BELOW.search(before) else 1 if ABOVE.search(before) else 0
