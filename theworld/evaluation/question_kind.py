"""Which category of the benchmark a question of the training data belongs to, told from its words."""

from __future__ import annotations

import re

from theworld.evaluation.questions import DIRECTION, REGION

FORMS = (
    ("above", r"\babove\b|\bover\b|higher|\bup\b"),
    ("below", r"\bbelow\b|\bunder\b|\blower\b|\bdown\b"),
    ("left", r"\bleft\b"),
    ("right", r"\bright\b"),
    ("behind", r"\bbehind\b|\bfurther\b|more distant"),
    ("front", r"\bin front\b|\bcloser\b|less distant|positioned before"),
    ("tall", r"\btaller\b|(?:more|greater) height"),
    ("short", r"\bshorter\b|less(?:er)? height"),
    ("wide", r"\bwider\b|(?:more|greater) width"),
    ("thin", r"\bthinner\b|\bnarrower\b|less(?:er)? width"),
    ("big", r"\bbigger\b|\blarger\b|greater size"),
    ("small", r"\bsmaller\b|lesser size"),
)
"""What is compared, and the words for it."""
CHOICE = re.compile(r"\b(?:which|who)\b|\bbetween Region", re.I)
DISTANCE = re.compile(r"\b(?:distance|distant|far|apart|close|gap)\b", re.I)


def category_of(question: str) -> str | None:
    """The category of a question with its regions as ``Region [N]``; None: the benchmark has no such questions."""
    regions = set(REGION.findall(question))
    text = question.lower()
    if len(regions) == 1:
        if re.search(r"\bwid(?:e|th)\b|horizontal|\bradius\b", text):
            return "width_data"
        return "height_data" if re.search(r"\btall\b|\bheight\b|vertical|vericall", text) else None
    if len(regions) != 2:
        return None
    if "if you are at" in text:
        return DIRECTION
    for name, words in FORMS:
        if re.search(words, question, re.I) and not re.search(r"\bhow (?:far|distant|close|much)\b", text):
            return f"{name}_choice" if CHOICE.search(question) else f"{name}_predicate"
    if not DISTANCE.search(text):
        return None
    axis = "horizontal_" if "horizontal" in text else "vertical_" if "vertical" in text else ""
    return f"{axis}distance_data"
