"""Signs of life of the ranks: who waits for what, and who gives none.

Rank 0's sign is the lease's file, renewed as long as it lives. The others write only while no batch is done, so that a
run of hundreds of ranks that gets on writes nothing: a rank that is stopped, or whose machine is, then is the one
without a sign. Rank 0 reads all of them and says in its own what it has found, which is all that the others read.

Reading and writing may hang with the file system, and so it is done in a thread of its own that nothing waits for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from theworld.files import read_json, write_json
from theworld.lease import BEAT, rank_path
from theworld.pulse import LOADER, RANKS, TRAINING, Pulse

log = logging.getLogger(__name__)

LONGEST_PAUSE = 10.0
BEFORE_WARNING = 6
"""Signs that fit between a batch and the first warning."""
QUIET = 2
"""Pauses after a batch before the first sign."""
MISSED = 2.5
"""Signs that a rank may miss before it counts as silent."""
SHOWN = 3


@dataclass(frozen=True)
class Found:
    """What is known of the ranks.

    Attributes:
        silent: ranks that give no sign, and for how many seconds.
        planned: some rank is in a wait that may last.
        waits: what is waited for, as the log names it; "" if nobody knows.
        at: when that was found out, by the monotonic clock.
    """

    silent: dict[int, float] = field(default_factory=dict)
    planned: bool = False
    waits: str = ""
    at: float = field(default_factory=time.monotonic)


class Signs:
    """This rank's sign, and what it knows of the others.

    Args:
        folder: the lease's.
        launch: this start's number, which may still grow.
        rank: this rank's.
        ranks: how many there are.
        pulse: of this process.
        warn: seconds after which the watchdog wants to know.
    """

    def __init__(
        self, folder: Path, launch: Callable[[], int], rank: int, ranks: int, pulse: Pulse, warn: float
    ) -> None:
        self.folder, self.launch, self.rank, self.ranks, self.pulse = folder, launch, rank, ranks, pulse
        self.pause = min(LONGEST_PAUSE, warn / BEFORE_WARNING)
        self.beats = 0
        self.found = Found()
        self._heard: dict[int, tuple[int, float]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="signs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """No more signs; the file goes with the next start's."""
        self._over.set()

    def planned_elsewhere(self) -> bool:
        """Whether some rank, as far as was found out of late, is in a wait that may last."""
        return self.found.planned and time.monotonic() - self.found.at < 2 * MISSED * max(self.pause, BEAT)

    def doing(self) -> dict[str, Any]:
        """What this rank says of itself."""
        pulse, doing, now = self.pulse, self.pulse.doing, time.monotonic()
        return {
            "what": doing.what,
            "detail": doing.detail(),
            "planned": doing.planned(),
            "batch": pulse.batch,
            "still": round(now - pulse.moved_at, 1),
        }

    def _run(self) -> None:
        while not self._over.wait(self.pause):
            try:
                self._exchange()
            except OSError as error:
                log.warning("%s: signs of life cannot be exchanged (%s), trying again", self.folder, error)

    def _exchange(self) -> None:
        path = rank_path(self.folder, self.launch(), self.rank)
        if time.monotonic() - self.pulse.batch_at < QUIET * self.pause:
            self._heard, self.found = {}, Found()
            if self.rank and self.beats:
                # What it said of the last time must not be taken for what it does the next time.
                path.unlink(missing_ok=True)
                self.beats = 0
            return
        if self.rank:
            self.beats += 1
            write_json(path, {"beat": self.beats, "doing": self.doing()}, sync=False)
        self._read()

    def _read(self) -> None:
        """Look at the others' signs, or, from another rank than 0, at what rank 0 has found in them."""
        signs = {rank: self._sign_of(rank) for rank in (range(1, self.ranks) if self.rank == 0 else [0])}
        now = time.monotonic()
        silent = {}
        for rank in signs:
            longest = MISSED * (max(self.pause, BEAT) if rank == 0 else self.pause)
            beat, heard_at = self._heard[rank]
            since = now - heard_at
            if since >= longest + (0 if beat else QUIET * self.pause):
                silent[rank] = since
        told = {rank: sign for rank, sign in signs.items() if rank not in silent}
        planned = any(sign.get("planned") for sign in told.values())
        if self.rank == 0:
            self.found = Found(silent, planned, self._waits(silent, told))
        else:
            of_all = told.get(0, {}).get("found", {})
            silent |= {int(rank): float(since) for rank, since in of_all.get("silent", {}).items()}
            self.found = Found(
                silent, planned or bool(of_all.get("planned")), of_all.get("waits") or name_silent(silent)
            )

    def _sign_of(self, rank: int) -> dict[str, Any]:
        """What a rank says; notes when it was last heard of."""
        content = read_json(rank_path(self.folder, self.launch(), rank))
        beat = int(content.get("beat", 0)) if isinstance(content, dict) else 0
        if rank not in self._heard or self._heard[rank][0] != beat:
            # Before its first sign a rank counts from the last batch, which all have done.
            first = rank not in self._heard and beat == 0
            self._heard[rank] = (beat, self.pulse.batch_at if first else time.monotonic())
        return content.get("doing") or {} if isinstance(content, dict) else {}

    def _waits(self, silent: dict[int, float], told: dict[int, dict[str, Any]]) -> str:
        """Which ranks are waited for, in words."""
        if silent:
            return name_silent(silent)
        told = {0: self.doing(), **told}
        at_loader = [rank for rank, sign in sorted(told.items()) if sign.get("what") == LOADER]
        if at_loader:
            return "the loader (" + some(f"rank {rank}, {told[rank]['detail']}" for rank in at_loader) + ")"
        others = [rank for rank, sign in sorted(told.items()) if sign.get("what") not in (RANKS, None)]
        if all(told[rank]["what"] == TRAINING for rank in others) and len(others) == self.ranks:
            return f"the step of batch {self.pulse.batch + 1}, in which all ranks are"
        return some(f"rank {rank} (in {told[rank]['what']})" for rank in others)


def name_silent(silent: dict[int, float]) -> str:
    """The ranks that give no sign of life, in words; "" if all do."""
    return some(f"rank {rank}, which gives no sign of life for {since:.0f} s" for rank, since in sorted(silent.items()))


def some(parts: Any) -> str:
    """The first few, and how many there are more."""
    named = list(parts)
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return "; ".join(named[:SHOWN]) + more
