"""An answer as a list of statements: markdown away, regions as ``R0``, questions and options left out.

What is no statement of the answer's own does not count: questions (those that repeat the question, too), lists of
options, what follows a turn that the model invents for the user, hypotheses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

ELIDED = "R_"
"""Stands where an answer leaves a region out: ``[...] is above Region [1]``."""

# Escapes, so that nobody has to tell one dash from another.
PLAIN = str.maketrans(
    {
        "\u2019": "'",
        "\u2018": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2033": '"',
        "\u2032": "'",
        "\u2013": "-",
        "\u2014": "-",
        "\u2212": "-",
    }
)
PLAIN.update(
    str.maketrans({"\u00a0": " ", "\u202f": " ", "\u00bd": " 1/2", "\u00bc": " 1/4", "\u00be": " 3/4", "\u00d7": "*"})
)

LOST_STOP = re.compile(r"\b(meters|metres|feet|inches|centimeters)\?(?=s\b)", re.IGNORECASE)
LOST_APOSTROPHE = re.compile(r"(?<=[\w\]])\?s\b")
LOST_IN_NOT = re.compile(r"\b(don|doesn|didn|isn|aren|wasn|can|couldn|won|wouldn) t\b", re.IGNORECASE)
ANY_REGION = re.compile(r"<?\bregions?\s*(?:\[\s*(\d+|\.\.\.)\s*\]|(\d+)\b)>?|\[\s*(\d+|\.\.\.)\s*\]", re.IGNORECASE)
DOTS_FOR_A_REGION = re.compile(r"\.\.\.+(?=\s*(?:is|are|has|does|was)\b)")
ABBREVIATION = re.compile(r"\b(ft|in|approx|cm|mm|yd|ca|vs)\.(?=\s*[a-z0-9)(,])")
BULLET = re.compile(r"^\s*(?:[-•>]\s*|\d+[.)]\s+)+")
SENTENCE = re.compile(r"(?:[^.!?;\n]|\.(?=\d)|(?<=\d)\.(?=\d))+[.!?;]*")

QUESTION_WORDS = re.compile(
    r"(?:is|are|do|does|did|can|could|would|will|what|which|who|whose|where|how|why)\b", re.IGNORECASE
)
INSTRUCTION = re.compile(
    r"(?:tell|give|find out|please|provide|determine|estimate|measure|convert|identify)\b(?!\s*:)[^:]*(?::\s*)?",
    re.IGNORECASE,
)
"""What is left of it behind a colon is a statement: "Estimate the height: it is about 2 m"."""
MARKER = re.compile(
    r"(?:(?:so|thus|therefore|hence|consequently|in conclusion|conclusion|in summary|overall"
    r"|correct(?=\s*:)|(?:(?:the|my|final|correct|short|actual|right)\s+)*answer(?:\s+is)?|final \w+(?=\s*:)"
    r"|result(?=\s*:))\b\s*[:,]*\s*)+",
    re.IGNORECASE,
)
MARKER_WITHIN = re.compile(r"\bthe answer is\b", re.IGNORECASE)
HYPOTHESIS = re.compile(
    r"\b(?:if|whether|assum\w+|suppos\w+|imagine|for example|e\.g|let's (?:take|say|use))\b", re.IGNORECASE
)
SITUATION = re.compile(r"\bif (?:you|i|we|one) (?:are|were|is|stand)\b[^,.]*?R\d\s*,?(?:\s*then\b)?", re.IGNORECASE)
"""The question's own scene, "If you are at Region [0]", is no supposition."""
SPEAKER = re.compile(r"^\s*(user|model|assistant|human)\s*:?\s*$", re.IGNORECASE)
OPTION = re.compile(r"^\(?[A-Ea-e][.)]\s+")
BREAKS = (
    r",(?!\d|\s*[\w-]+\s*(?:inch|cm|centi))|;|\s-\s(?!\d)|\b(?:but|while|whereas|because|since|although|though|however|so)\b"
    r"|\band\b(?=\s+(?:(?:the\s+)?(?:R\w|it)\s+)?(?:is|has|are|appears?)\b)"
)
CLAUSE = re.compile(BREAKS + r"|[()]|:(?!\d)", re.IGNORECASE)
CLAUSE_WITH_LABEL = re.compile(BREAKS, re.IGNORECASE)
"""Keeps "Width: 30 cm (11.8 inches)" in one piece."""
REGION_IN_BRACKETS = re.compile(r"\(\s*(R\d+)\s*\)")
BRACKETS_BEHIND_REGION = re.compile(r"(R\d+)\s*\([^()\d]*\)")
REFUSAL = re.compile(
    r"\b(?:cannot|can't|can not|couldn't|could not|unable|impossible|not possible|difficult|hard to|unclear|unknown"
    r"|don't know|do not know|not (?:specified|provided|given|clear|known|enough|visible|present|sure|available|shown)"
    r"|doesn't provide|does not provide|no information|insufficient|undetermined|would need|need more|not a valid)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Statement:
    """One sentence of an answer."""

    text: str
    marked: bool
    """Said to be the conclusion: "Answer:", "Therefore"."""
    alone: bool
    """All that its line says."""

    def clauses(self, breaks: re.Pattern[str] = CLAUSE) -> list[str]:
        """Parts that can each assert something; those that refuse or only suppose are left out."""
        text = BRACKETS_BEHIND_REGION.sub(r"\1", REGION_IN_BRACKETS.sub(r"\1", self.text))
        kept = []
        for part in breaks.split(text):
            supposed = HYPOTHESIS.search(part)
            part = (part[: supposed.start()] if supposed else part).strip()
            if part and not REFUSAL.search(part):
                kept.append(part)
            if supposed and supposed.start() <= 1 and supposed[0].lower() == "if" and "assum" not in self.text:
                break  # "If it is wider, it will fit": what follows stands on the supposition.
        return kept

    @property
    def refuses(self) -> bool:
        """Says that it cannot be told."""
        return bool(REFUSAL.search(self.text))


def plain_text(answer: str, regions: Sequence[int]) -> str:
    """An answer without markdown, its regions as ``R0``.

    Args:
        answer: as the model wrote it.
        regions: numbers in the question. Where it has two, any other number is the second misread from the picture
            (``Region [11]`` for 1).
    """

    def name(found: re.Match[str]) -> str:
        number = next(group for group in found.groups() if group is not None)
        if number == "...":
            return f" {ELIDED} "
        known = int(number) in regions or len(regions) < 2
        return f" R{number if known else regions[-1]} "

    text = LOST_APOSTROPHE.sub("'s", LOST_STOP.sub(r"\1. ", answer.translate(PLAIN)))
    text = LOST_IN_NOT.sub(lambda found: ("can" if found[1].lower() == "can" else found[1][:-1] + "n") + "'t", text)
    text = re.sub(r"[*#`]+|(?<!\w)_+|_+(?!\w)", "", text)
    text = ANY_REGION.sub(name, text)
    text = DOTS_FOR_A_REGION.sub(f" {ELIDED} ", text)
    text = re.sub(r"\.\.\.+", ". ", text)
    text = re.sub(r"[ \t]+", " ", ABBREVIATION.sub(r"\1", text))
    return re.sub(r"(R\d+) and (R\d+)", r"\1 & \2", re.sub(r" (?='s\b)", "", text))


def statements(answer: str, regions: Sequence[int]) -> list[Statement]:
    """What an answer states, in its order; questions and lists of options are left out."""
    found: list[Statement] = []
    carried = False
    for line in own_lines(plain_text(answer, regions)):
        sentences = [sentence.strip() for sentence in SENTENCE.findall(line) if re.search(r"\w", sentence)]
        for sentence in sentences:
            if sentence.endswith("?"):
                continue
            text = SITUATION.sub("", sentence.rstrip(".!; ")).strip()
            text = INSTRUCTION.sub("", text, count=1) if INSTRUCTION.match(text) else text
            marker = MARKER.match(text)
            body = text[marker.end() :] if marker else text
            if marker and not body.strip(" :"):
                carried = True  # "Answer:" on a line of its own marks what comes next.
                continue
            if not text or (not marker and QUESTION_WORDS.match(text)):
                continue
            marked = carried or marker is not None or bool(MARKER_WITHIN.search(text))
            found.append(Statement(OPTION.sub("", body.strip()), marked, len(sentences) == 1))
            carried = False
    return found


def own_lines(text: str) -> list[str]:
    """Lines that the answer itself says: without speakers' names, invented turns of the user and options."""
    lines: list[str] = []
    for line in text.splitlines():
        speaker = SPEAKER.match(line)
        if speaker and speaker[1].lower() in ("user", "human"):
            break
        if not speaker:
            lines.append(BULLET.sub("", line).strip())
    return without_options([line for line in lines if line])


def without_options(lines: list[str]) -> list[str]:
    """Drop lists that only name what can be chosen: A) ... B) ..., or Yes and No, or both regions, a line each."""
    lettered = sum(bool(OPTION.match(line)) for line in lines) > 1
    kept, position = [], 0
    while position < len(lines):
        here = lines[position].rstrip(" .").lower()
        after = lines[position + 1].rstrip(" .").lower() if position + 1 < len(lines) else ""
        if here in ("yes or no", "yes/no"):
            position += 1
            continue
        if {here, after} == {"yes", "no"} or (here != after and is_region(here) and is_region(after)):
            position += 2
            continue
        if not (lettered and OPTION.match(lines[position])):
            kept.append(lines[position])
        position += 1
    return kept


def is_region(text: str) -> bool:
    """Nothing but a region's name."""
    return re.fullmatch(r"\s*r\d+\s*", text, re.IGNORECASE) is not None
