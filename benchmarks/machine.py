"""What the figures of a benchmark are of: the machine, its load, the versions; and how tables of them are written."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psutil


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{named or platform.machine()} ({len(os.sched_getaffinity(0))} cores)"


def machine() -> str:
    """The machine in a line, without its name."""
    memory = psutil.virtual_memory().total / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "mosaicml"))
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{processor()}, {memory:.0f} GiB, {platform.system()}; Python {python}, {libraries}"


def load() -> str:
    """How much else the machine has to do: processes that wait for a core, the average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float]) -> str:
    """How far the rounds lie apart, from the fastest to the slowest, as a share of their median."""
    return f"{(max(values) - min(values)) / statistics.median(values):.0%}" if len(values) > 1 else "one round"


def row(*cells: object) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(map(str, cells)) + " |"


def head(*names: str) -> str:
    """The two lines that begin a table."""
    return row(*names) + "\n" + "|---" * len(names) + "|"
