"""By which words an answer calls a region: "Region [0] (the sofa) ... The sofa is wider"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from theworld.evaluation.statements import plain_text

GENERIC = frozenset(
    re.findall(
        r"\w+",
        """
        a an the this that these those each its it they their them both two one i we you my our is are be of in on
        at to for from with and or as by about around approximately roughly very quite just likely probably
        estimated approximate estimate estimation answer value measurement result total overall actual exact real
        final visual rough region regions area areas box boxes bounding rectangle object objects item items
        highlighted marked labeled shown height width size distance gap space separation dimension dimensions
        vertical horizontal horizontally vertically radius diameter length extent between bottom top would can
        could might may has have apart here there which reference where calculated estimating based guess appears
        appear seems seem looks look measures measured stands closer shows show correct b c d r image visually say
        """,
    )
)
"""Words that name no thing of the picture."""
ALIASES = (
    re.compile(r"R(\d+) ?\(([^()]*)\)"),
    re.compile(r"R(\d+) ?(?::|is|appears to be|seems to be|encompasses|contains|covers) (?:the|an?) ([^.,(\n]*)", re.I),
)
ALIAS_BEFORE = re.compile(r"((?:[\w-]+ ){1,4})\(\s*R(\d+)\s*\)")


def aliases(answer: str, regions: Sequence[int]) -> dict[int, set[str]]:
    """Region -> words for it; none that stand for another region too."""
    text = plain_text(answer, regions)
    words: dict[int, set[str]] = {region: set() for region in regions}
    named = [(int(found[1]), found[2]) for pattern in ALIASES for found in pattern.finditer(text)]
    named += [(int(found[2]), found[1]) for found in ALIAS_BEFORE.finditer(text)]
    for number, phrase in named:
        words.setdefault(number, set()).update(re.findall(r"[a-z]+", phrase.lower()))
    return {
        region: group - GENERIC - {word for number, others in words.items() if number != region for word in others}
        for region, group in words.items()
    }


def with_regions(clause: str, named: Mapping[int, set[str]]) -> str:
    """A clause that names no region, with ``R0`` in place of the words for it."""
    if re.search(r"R\d", clause):
        return clause
    owner = {word: region for region, group in named.items() for word in group}
    return re.sub(r"[A-Za-z]+", lambda found: name_of(found[0], owner), clause)


def name_of(word: str, owner: Mapping[str, int]) -> str:
    """A region's name where the word stands for one, else the word."""
    region = owner.get(word.lower())
    return word if region is None else f"R{region}"
