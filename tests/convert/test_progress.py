"""What is visible while a conversion runs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from raw_folder import Raw

from tests.helpers.terminal import on_terminal
from theworld.data.shards.convert_report import ConvertProgress


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw", 300)
    raw.add_images(*range(300))
    returned, shown = on_terminal(raw.command())
    assert returned == 0
    assert "300/300" in shown
    assert "images/s" in shown


def test_no_bar_in_a_log(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw", 30)
    raw.add_images(*range(30))
    done = raw.run()
    (line,) = done.stderr.splitlines()
    assert "INFO convert.format: auto takes openspatial for" in line
    assert raw.run().stderr == ""


def test_lines_in_a_log_tell_rate_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = ConvertProgress(4000, line_every=0.0)
    progress.read(3_000_000_000)
    progress.wrote(1000, 300_000_000)
    progress.tick()
    progress.close()
    line = caplog.messages[-1]
    assert line.startswith("1,000 of at most 4,000 images, ")
    for part in ("images/s", "MB/s", "min left", "JSON 3.0 GB"):
        assert part in line


def test_lines_come_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = ConvertProgress(4000)
    for _ in range(100):
        progress.wrote(10, 3_000_000)
        progress.tick()
    progress.close()
    assert caplog.messages == []
