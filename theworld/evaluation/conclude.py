"""From all that an answer asserts of what was asked to the one thing that it concludes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")

WEAK, LOOSE, DIRECT = range(3)
"""How directly a claim speaks of what was asked: by the way, without naming it, naming it."""


@dataclass(frozen=True)
class Claim(Generic[Value]):
    """One thing that an answer asserts of what was asked."""

    value: Value | None
    """None: that it cannot be told."""
    strength: int = DIRECT
    marked: bool = False
    """Said to be the conclusion."""


def conclude(claims: Sequence[Claim[Value]], same: Callable[[Value, Value], bool]) -> Value | None:
    """What the claims amount to; None where they say nothing or two different things.

    What is marked as the conclusion wins over what was said before it, not over what is said as directly after it;
    without a mark the most direct claims count. Those that count must agree.

    Args:
        claims: in the answer's order.
        same: whether two values are the same answer.
    """
    marked = [place for place, claim in enumerate(claims) if claim.marked]
    if marked:
        counting = [claims[place] for place in marked]
        counting += [
            claim for claim in claims[marked[-1] + 1 :] if claim.strength == DIRECT and claim.value is not None
        ]
    else:
        counting = [claim for claim in claims if claim.value is not None]
        strongest = max((claim.strength for claim in counting), default=DIRECT)
        counting = [claim for claim in counting if claim.strength == strongest]
    if not counting or counting[-1].value is None:
        return None
    last = counting[-1].value
    agree = all(claim.value is not None and same(claim.value, last) for claim in counting)
    return last if agree else None
