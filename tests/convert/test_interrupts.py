"""Signals that come at the worst moment: noted in sections that share locks, raised at their end, and never lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from composer.core import engine

from theworld.interrupts import held_back, stop_on_signal


def test_no_moment_of_an_interrupt_leaves_the_pool_waiting_for_ever() -> None:
    """``wait`` locks its futures in a loop: an interrupt within left one locked, for which a thread waited."""
    program = Path(__file__).with_name("interrupt_everywhere.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    places = int(done.stdout.split()[-2])
    assert places > 10
    assert done.stdout.count("interrupted") > places / 2, "few places are come by once only"


@pytest.fixture(params=["python", "composer"])
def found(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a process does at Ctrl-C before anything of ours runs: importing Composer changes it."""
    before = signal.getsignal(signal.SIGINT)
    handler: Any = signal.default_int_handler if request.param == "python" else engine.sigterm_handler
    signal.signal(signal.SIGINT, handler)
    yield
    assert signal.getsignal(signal.SIGINT) is handler, "not given back"
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_raised_where_the_section_ends(number: signal.Signals) -> None:
    steps = []

    def sections() -> None:
        with held_back():
            with held_back():
                signal.raise_signal(number)
            steps.append("inner section left")
        steps.append("never here")

    with stop_on_signal():
        with pytest.raises(KeyboardInterrupt):
            sections()
        with held_back():
            steps.append("not raised again")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert steps == ["inner section left", "not raised again"]


@pytest.mark.usefixtures("found")
def test_a_second_signal_does_not_wait() -> None:
    steps = []

    def section() -> None:
        with held_back():
            signal.raise_signal(signal.SIGINT)
            steps.append("first")
            signal.raise_signal(signal.SIGINT)
            steps.append("never here")

    with stop_on_signal(), pytest.raises(KeyboardInterrupt):
        section()
    assert steps == ["first"]


def test_whoever_has_ctrl_c_keeps_it() -> None:
    noted = []
    before = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    try:
        with stop_on_signal(), held_back():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert noted == [signal.SIGINT]
