"""All benchmarks that need no GPU, at a size for about a quarter of an hour on 2 cores, into benchmarks/RESULTS.md.

    make bench                                    or: python -m benchmarks.run_all [--minutes 15] [--no-rivals]
                                                  [--only NAME ...] [--gemma FOLDER] [--note TEXT]

What was measured before stays below, dated. A benchmark that fails has its last line in its place. ``--minutes`` scales
the sizes; each figure is a median, with the spread of its rounds. ``--gemma``, a folder with the released processor's
files, gives loader and packing the released vocabulary. ``--note`` is put under the date, for what is unusual: an idea
that was tried and failed stands here as well.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import load, machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
TITLE = """# Results

What `make bench` has found, the newest first; [docs/performance.md](../docs/performance.md) says what it means.
Machines differ, and so does what else they have to do: within a table ratios can be compared, between dates little.
"""
SHARED = Path("/dev/shm")
RIVALS, GEMMA = ("loader", "convert", "download"), ("loader", "packing")


def sizes(scale: float) -> dict[str, list[str]]:
    """Each benchmark's arguments: 1 is for a quarter of an hour."""

    def some(number: int, least: int) -> str:
        return str(max(least, round(number * scale)))

    rounds = "3" if scale > 0.3 else "1"
    eager = [] if scale > 0.02 else ["--no-compile"]
    few = [] if scale > 0.02 else ["--only", "theworld", "mdswriter", "mdswriters"]
    folder = ["--folder", str(SHARED)] if SHARED.is_dir() and scale <= 1 else []
    return {
        "loader": ["--samples", some(64, 16), "--rounds", rounds],
        "step": ["--smoke-steps", some(25, 2), "--wide-steps", some(2, 0), "--rounds", rounds, *eager],
        "packing": ["--samples", some(256, 8)],
        "convert": ["--images", some(2000, 20), "--rounds", rounds, *few],
        "download": ["--images", some(1500, 20), "--rounds", rounds, *folder],
        "resume": ["--samples", some(30_000, 2000), "--rounds", rounds],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--only", nargs="+", choices=list(sizes(1)), default=list(sizes(1)))
    parser.add_argument("--gemma")
    parser.add_argument("--note", default="")
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    begun, busy = time.monotonic(), load()
    before = given.out.read_text() if given.out.is_file() else TITLE
    parts = [f"\n{given.note}"] if given.note else []
    for name in given.only:
        arguments = sizes(given.minutes / 15)[name]
        arguments += ["--no-rivals"] if given.no_rivals and name in RIVALS else []
        arguments += ["--gemma", given.gemma] if given.gemma and name in GEMMA else []
        parts.append(one(name, arguments))
        minutes = (time.monotonic() - begun) / 60
        told = f"Load {busy} before it began, {load()} at its end, its own included; {minutes:.0f} minutes."
        title = f"## {time.strftime('%Y-%m-%d')}\n\n{machine()}. {told}"
        given.out.write_text(on_top(before, "\n".join([title, *parts])))  # what is measured is kept if it ends early
    return 0


def one(name: str, arguments: list[str]) -> str:
    """A benchmark's section: the command and what it prints."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryFile("w+") as errors:
        command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
        settings = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=errors, text=True)
        errors.seek(0)
        told = errors.read()
    print(done.stdout, file=sys.stderr, flush=True)
    found = done.stdout.strip()
    if done.returncode:
        print(told[-3000:], file=sys.stderr)
        found += f"\n\nfailed: {(told.strip().splitlines() or ['no output'])[-1]}"
    shown = " ".join(["python -m benchmarks." + name, *without_folders(arguments)])
    return f"\n### {name}\n\n`{shown}`\n\n{with_room(without_places(found))}"


def without_folders(arguments: list[str]) -> list[str]:
    """Arguments without this machine's folders."""
    return ["FOLDER" if argument.startswith("/") and argument != str(SHARED) else argument for argument in arguments]


def without_places(text: str) -> str:
    """Text without the names of this machine's folders."""
    return re.sub(r"(?<![\w.`])/(?:[\w.+-]+/)+[\w.+-]+", "...", text.replace(str(Path.home()), "..."))


def with_room(text: str) -> str:
    """Text whose tables stand in paragraphs of their own, as Markdown wants them."""
    lines: list[str] = []
    for line in text.splitlines():
        if lines and lines[-1].strip() and line.strip() and line.startswith("|") != lines[-1].startswith("|"):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def on_top(before: str, section: str) -> str:
    """The file's text with a section in front of those that are there."""
    rest = before.removeprefix(TITLE).strip()
    return "\n".join([TITLE, section, *(["", rest] if rest else [])]).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
