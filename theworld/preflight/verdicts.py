"""What a check found: a verdict, a line, and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from theworld.errors import UserError

OK, WARN, FAIL, UNKNOWN = "ok", "warn", "fail", "unknown"
"""The run can go on; it can, but look at this; it would fail; it cannot be told here, which fails nothing."""


@dataclass(frozen=True)
class Verdict:
    """One row of the table."""

    name: str
    state: str
    text: str
    figures: dict[str, Any] = field(default_factory=dict)


def check(name: str, look: Callable[[], Verdict]) -> Verdict:
    """What ``look`` finds; bad input that it meets is what a run would end with."""
    try:
        return look()
    except UserError as error:
        return Verdict(name, FAIL, str(error))


def as_table(verdicts: Sequence[Verdict]) -> str:
    """A line each."""
    width = max(len(one.name) for one in verdicts)
    return "\n".join(f"{one.state:<8}{one.name:<{width + 2}}{one.text}" for one in verdicts)


def would_fail(verdicts: Sequence[Verdict]) -> bool:
    """Whether the run would fail."""
    return any(one.state == FAIL for one in verdicts)
