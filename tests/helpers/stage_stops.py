"""A callback for ``code_paths``: a signal to each rank at the beginning of a batch of one of a run's stages.

code_paths=[tests/helpers/stage_stops.py] callbacks={'stage_stops:Stops': {stage: full, batch: 1, number: 9}}
"""

from __future__ import annotations

import os
from pathlib import Path

from composer.core import Callback, State
from composer.loggers import Logger

FILE = Path(__file__)


class Stops(Callback):
    """Sends the signal to its own process."""

    def __init__(self, stage: str, batch: int, number: int) -> None:
        self.at, self.number = (stage, batch), number

    def batch_start(self, state: State, logger: Logger) -> None:
        if (state.run_name.rpartition("-")[2], int(state.timestamp.batch)) == self.at:
            os.kill(os.getpid(), self.number)


def stops_at(stage: str, batch: int, number: int) -> list[str]:
    """The settings for it."""
    at = f"{{stage: {stage}, batch: {batch}, number: {number}}}"
    return [f"code_paths=[{FILE}]", f"callbacks={{'stage_stops:Stops': {at}}}"]
