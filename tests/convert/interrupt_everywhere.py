"""A program: Ctrl-C at each line of ``concurrent.futures.wait`` that the pool's main thread comes by; never a hang."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from theworld.data.shards.pool import ShardPool
from theworld.interrupts import stop_on_signal

FUNCTIONS = ("wait", "_create_and_install_waiters", "__enter__", "__exit__")
Place = tuple[str, int]


class NoWriter:
    """Writes nothing, so that the pool's own work is all there is."""

    def finished(self, job: Any) -> None:
        return None

    def write(self, job: Any) -> Any:
        return job

    def finish(self, job: Any, written: Any) -> dict[str, Any]:
        return {}


def write_twelve() -> None:
    pool = ShardPool(NoWriter(), 2, lambda: None)  # pyright: ignore[reportArgumentType]
    for _ in pool.run(iter(range(12))):  # pyright: ignore[reportArgumentType]
        pass


def traced(at: Callable[[Place], None]) -> None:
    """Write the shards; calls ``at`` with each line of the functions that the main thread comes by."""

    def look(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if code.co_name not in FUNCTIONS or not code.co_filename.endswith(os.path.join("futures", "_base.py")):
            return None
        if event == "line":
            at((code.co_name, frame.f_lineno))
        return look

    sys.settrace(look)
    try:
        write_twelve()
    finally:
        sys.settrace(None)


def main() -> None:
    places: dict[Place, None] = {}
    with stop_on_signal():
        traced(lambda place: places.setdefault(place))
        for wanted in places:
            seen = []

            def interrupt(place: Place, wanted: Place = wanted, seen: list[Place] = seen) -> None:
                if place == wanted:
                    seen.append(place)
                    if len(seen) == 2:  # in a loop over futures: with the first one locked
                        signal.raise_signal(signal.SIGINT)

            print("at", *wanted, flush=True)
            try:
                traced(interrupt)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
    print(len(places), "places")


if __name__ == "__main__":
    main()
