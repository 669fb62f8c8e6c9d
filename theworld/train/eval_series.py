"""The series that evaluations go on in: values of a curve that is read as one are of the same samples.

An evaluation set does not change within a start, and ``launches.jsonl`` says which each start had. When it has grown
since, or is another, its values go on as a series with a name of their own.
"""

from __future__ import annotations

import logging
from typing import Any

from theworld.data.cache.snapshot import Snapshot

log = logging.getLogger(__name__)

FIRST = "eval"
"""The series of the set that the run began with; Composer puts ``metrics/`` in front."""


def eval_facts(snapshot: Snapshot, starts: list[dict[str, Any]], name: str = "") -> dict[str, Any]:
    """What ``launches.jsonl`` records of a start's evaluation set.

    Args:
        snapshot: the set as it is now.
        starts: the lines of the run's earlier starts; those of releases before name no set.
        name: of the set, where there are several.

    Returns:
        ``samples``, ``fingerprint``, and the name of the ``series``: that of the first start with the same set, else a
        new one.
    """
    first = f"{FIRST}-{name}" if name else FIRST
    facts_of = [(start.get("evals") or {}).get(name) if name else start.get("eval") for start in starts]
    known = {str(one["fingerprint"]): one for one in facts_of if one}
    facts = {"samples": snapshot.samples, "fingerprint": snapshot.fingerprint}
    if not known:
        return {**facts, "series": first}
    if snapshot.fingerprint in known:
        return {**facts, "series": str(known[snapshot.fingerprint]["series"])}
    series = f"{first}-{snapshot.samples}"
    if any(one["series"] == series for one in known.values()):
        series = f"{series}-{snapshot.fingerprint[:6]}"
    before = next(iter(known.values()))
    log.info(
        "the evaluation set%s has %d samples, and had %d when the run began: its values go on as metrics/%s",
        f" {name}" if name else "",
        snapshot.samples,
        int(before["samples"]),
        series,
    )
    return {**facts, "series": series}
