"""When the watchdog warns, when it ends a rank, and how."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from theworld.config.schema import WatchdogConfig
from theworld.errors import EXIT_RUN_AGAIN
from theworld.pulse import Pulse, always, nothing
from theworld.signals import StopRequest
from theworld.train.watchdog import Watchdog

LIMITS = WatchdogConfig(warn=60, abort=900)


def watchdog(folder: Path, pulse: Pulse, at_end: Callable[[str], Any] = lambda reason: nothing()) -> Watchdog:
    """Over the only rank of a run."""
    fence: Any = SimpleNamespace(launch=1)
    return Watchdog(LIMITS, StopRequest(), fence, folder, 0, 1, at_end, pulse)


def look(dog: Watchdog, seconds: float) -> None:
    """What it does where nothing has moved for so long."""
    dog.fed_at = dog.pulse.moved_at = time.monotonic() - seconds
    dog._look(LIMITS)


def test_a_warning_a_minute_and_the_end_at_the_limit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulse, ends = Pulse(), []
    pulse.batch_done(4)
    dog = watchdog(tmp_path, pulse)
    monkeypatch.setattr(dog, "end", ends.append)
    with caplog.at_level(logging.WARNING, "theworld.train.watchdog"):
        for seconds in (59, 61, 62):
            look(dog, seconds)
        assert caplog.messages == ["no batch for 61 s: waiting for the step of batch 5"]
        dog.said_at -= 60
        look(dog, 122)
    assert caplog.messages[1:] == ["no batch for 122 s: waiting for the step of batch 5"]
    assert not ends
    look(dog, 901)
    assert ends == ["no batch for 901 s: waiting for the step of batch 5"]


def test_a_planned_wait_has_no_limit_and_feeds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pulse, ends = Pulse(), []
    pulse.batch_done(4)
    dog = watchdog(tmp_path, pulse)
    monkeypatch.setattr(dog, "end", ends.append)
    with pulse.at("save", planned=always):
        look(dog, 5000)
        assert dog.still < 60
    assert not ends


def test_the_end_is_exit_code_75_and_is_written_down(tmp_path: Path) -> None:
    def work() -> None:
        watchdog(tmp_path, Pulse(), (tmp_path / "said").write_text).end("no batch for 901 s")

    ended = multiprocessing.get_context("fork").Process(target=work)
    ended.start()
    ended.join()
    assert ended.exitcode == EXIT_RUN_AGAIN
    assert (tmp_path / "said").read_text() == "no batch for 901 s"
