"""How many samples a pass is to have, and how long they are worth waiting for (``train_loader.expected_samples``)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from theworld.config.schema import Config
from theworld.data.batches.mixture import PassMix, copies_at
from theworld.data.cache.snapshot import Snapshot
from theworld.data.entries.downloaded import last_arrival
from theworld.errors import UserError

AUTO = "auto"


@dataclass
class Expectation:
    """What a pass is to have.

    Attributes:
        configured: a number, auto, or None for what is there.
        json_samples: how many the JSON still promised when that was set; None if nobody wrote it down.
        unmoved_since: since when nothing has arrived, in seconds since 1970; None: it has only just been looked at.
        give_up: seconds without movement after which nothing more is expected.
    """

    configured: int | str | None
    json_samples: int | None = None
    unmoved_since: float | None = None
    give_up: float = 86400.0

    def samples(self, snapshot: Snapshot) -> int | None:
        """Samples that the pass is to have, as far as is known now; None: what is there.

        Raises:
            UserError: auto, and the data set does not say what its JSON names.
        """
        if self.configured is None:
            return None
        if self.configured == AUTO:
            promised = promised_samples(snapshot)
            if promised is None:
                raise UserError(
                    f"train_loader.expected_samples: auto, but {snapshot.source} does not say how many samples its "
                    "JSON names; run convert/to_mds.py once more, or give a number"
                )
            return promised
        lost = (self.json_samples or 0) - (snapshot.json_samples or 0) if snapshot.json_samples is not None else 0
        return int(self.configured) - max(0, lost)

    def copies(self, snapshots: Sequence[Snapshot], mix: PassMix) -> int | None:
        """As :meth:`samples`, of a pass that may mix data sets: copies of its samples. With several data sets it is
        auto, or None.

        Args:
            snapshots: of the data sets.
            mix: what the pass takes of them.
        """
        if self.configured != AUTO:
            return self.samples(snapshots[0])
        promised = [self.samples(snapshot) or 0 for snapshot in snapshots]
        # What a data set has beyond its JSON is there all the same.
        return copies_at(mix, [max(*pair) for pair in zip(promised, mix.known[-1], strict=True)])

    def is_given_up(self) -> bool:
        """Whether nothing has moved for so long that nothing more is expected."""
        return self.unmoved_since is not None and time.time() - self.unmoved_since >= self.give_up


def promised_samples(snapshot: Snapshot) -> int | None:
    """What the data set will have when everything has arrived, by its manifest."""
    return snapshot.json_entries if snapshot.json_samples is None else snapshot.json_samples


def remember(config: Config, starts: list[dict[str, Any]], snapshot: Snapshot) -> Expectation:
    """Put together what the run's starts have seen.

    Args:
        config: of the run.
        starts: the lines of ``launches.jsonl``, oldest first.
        snapshot: of the data set as it is now.
    """
    loader = config.train_loader
    now = progress_facts(config, snapshot)
    found = Expectation(loader.expected_samples, snapshot.json_samples, give_up=loader.give_up)
    same_setting = unmoved = True
    for start in reversed(starts):
        same_setting &= start.get("expected_samples") == loader.expected_samples
        unmoved &= all(start.get(key) == value for key, value in now.items())
        if same_setting and start.get("json_samples") is not None:
            found.json_samples = start["json_samples"]
        if unmoved:
            found.unmoved_since = datetime.fromisoformat(start["time"]).timestamp()
    return found


def progress_facts(config: Config, snapshot: Snapshot) -> dict[str, Any]:
    """What moves while data set or download go on; a line of ``launches.jsonl`` has it."""
    return {
        "fingerprint": snapshot.fingerprint,
        "json_samples": snapshot.json_samples,
        "arrival": last_arrival(Path(config.convert.images)) if config.convert.images is not None else None,
    }
