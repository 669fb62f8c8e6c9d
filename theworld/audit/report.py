"""What an audit finds of one pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from theworld.audit.count import Keys


@dataclass
class PassReport:
    """What happened in one pass. Names are those of the first faults; counts are of all."""

    number: int
    ended: bool
    batches: int
    seen_once: int = 0
    """Ids that were seen once; of a pass that mixes data sets, as often as they are due."""
    trained: int = 0
    skipped: int = 0
    lost: int = 0
    """Seen only in steps that were lost because they were not finite."""
    repeated: int = 0
    """Ids that were seen more often."""
    never_seen: int = 0
    """Of what the pass had; for a pass that goes on, not yet."""
    unknown: int = 0
    """Ids that the data set does not have."""
    added_since: int = 0
    """Samples of generations that the pass, which has ended, never had."""
    per_generation: dict[str, list[int]] = field(default_factory=dict)
    """Seen and not seen, of each generation that the pass had."""
    names: dict[str, list[str]] = field(default_factory=dict)
    """Ids by fault: ``repeated``, ``never_seen``, ``unknown``."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Samples that carried no loss, and why."""
    parent: str | None = None
    faults: list[str] = field(default_factory=list)
    """What does not agree with the proof."""
    unproven: list[str] = field(default_factory=list)
    """What cannot be known."""
    whole: bool | None = None
    """Whether everything that the data set has was seen, or all that an older pass had; None: not checked."""
    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    """By data set, where the pass mixes several: samples that are due, copies of them that are due, and seen."""
    repeated_keys: Keys = field(default_factory=lambda: np.zeros(0, np.uint64), repr=False)
    """Of what was seen more often than it was due."""
    never_seen_keys: list[Keys] = field(default_factory=list, repr=False)
    """Of what was seen less often, by generation."""

    def as_json(self) -> dict[str, Any]:
        """Its figures and names."""
        return {key: value for key, value in vars(self).items() if not key.endswith("_keys")}

    @property
    def lost_samples(self) -> bool:
        """Whether a pass that has ended left out what it had."""
        return self.ended and bool(self.never_seen or self.lost or not self.trained)
