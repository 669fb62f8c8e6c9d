"""``make install``: uv where it can, pip where it cannot or where a site has set pip to an index of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
  *"config list") echo "$SETTINGS" ;;
  *"install -q -c constraints.txt uv") exit "$NO_UV" ;;
  *"-m uv "*) exit "$UV_FAILS" ;;
  *"-m pip install"*) exit "$PIP_FAILS" ;;
esac
"""


def calls_of(make: list[str], venv: Path, settings: str, faults: dict[str, str]) -> tuple[int, list[str]]:
    """The exit code of ``make``, and the calls of this environment's Python, which only writes them down."""
    python = venv / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    calls = venv.parent / "calls"
    told = {"NO_UV": "0", "UV_FAILS": "0", "PIP_FAILS": "0", **faults, "CALLS": str(calls), "SETTINGS": settings}
    done = subprocess.run(["make", *make], cwd=ROOT, env=os.environ | told, capture_output=True, check=False)
    return done.returncode, calls.read_text().splitlines()


def installed_by(folder: Path, settings: str = "", **faults: str) -> tuple[int, list[str]]:
    """The exit code of ``make install``, and what was called to install packages."""
    venv = folder / "venv"
    code, calls = calls_of(["install", f"VENV={venv}", "EXTRAS=dev,wandb"], venv, settings, faults)
    return code, [line for line in calls if ".[dev,wandb]" in line]


@pytest.mark.parametrize("settings", ["", "global.extra-index-url='https://wheels.example'\nglobal.timeout='60'"])
def test_uv_installs_with_the_pins(tmp_path: Path, settings: str) -> None:
    code, calls = installed_by(tmp_path, settings)
    assert code == 0
    (call,) = calls
    assert call.startswith("-m uv pip install")
    assert "--compile-bytecode" in call
    assert "-c constraints.txt" in call


@pytest.mark.parametrize(
    ("settings", "faults", "tried"),
    [
        ("", {"NO_UV": "1"}, 0),
        ("", {"UV_FAILS": "2"}, 1),
        ("global.index-url='https://mirror.example/simple'", {}, 0),
        (":env:.index-url='https://mirror.example/simple'", {}, 0),
        ("user.no-index='true'", {}, 0),
    ],
)
def test_pip_does_it_otherwise(tmp_path: Path, settings: str, faults: dict[str, str], tried: int) -> None:
    code, calls = installed_by(tmp_path, settings, **faults)
    assert code == 0
    assert ["-m uv pip" in call for call in calls] == [True] * tried + [False]
    assert calls[-1].startswith("-m pip install")
    assert "-c constraints.txt" in calls[-1]


def test_what_neither_can_install_is_an_error(tmp_path: Path) -> None:
    assert installed_by(tmp_path, UV_FAILS="2", PIP_FAILS="1")[0] != 0


def newest_by(folder: Path, settings: str = "", **faults: str) -> tuple[int, list[str]]:
    """The exit code of ``make setup-next``, and what was called to install packages."""
    venv = folder / "next"
    code, calls = calls_of(["setup-next", f"NEXT={venv}", "NEXT_EXTRAS=dev"], venv, settings, faults)
    return code, [line for line in calls if "install" in line]


def test_the_newest_versions_go_over_the_bounds(tmp_path: Path) -> None:
    code, calls = newest_by(tmp_path)
    assert code == 0
    assert calls[-1].startswith("-m uv pip install")
    assert "-c constraints-next.txt" in calls[-1]
    over = tmp_path / "next" / "over.txt"
    assert f"--override {over}" in calls[-1]
    names = {line.partition("==")[0] for line in over.read_text().splitlines() if line and not line.startswith("#")}
    assert names == {"torch", "torchvision", "transformers", "huggingface-hub", "diffusers", "numpy"}


def test_pip_takes_the_complete_list_as_it_is(tmp_path: Path) -> None:
    code, calls = newest_by(tmp_path, "global.index-url='https://mirror.example/simple'")
    assert code == 0
    every, own = calls
    assert "--no-deps -r constraints-next.txt" in every
    assert own.endswith("--no-deps --ignore-requires-python -e .")


@pytest.mark.parametrize(
    ("settings", "faults"),
    [
        ("", {"UV_FAILS": "2"}),
        ("", {"PIP_FAILS": "1"}),
        ("user.no-index='true'", {"PIP_FAILS": "1"}),
    ],
)
def test_newest_versions_that_do_not_resolve_are_an_error(
    tmp_path: Path, settings: str, faults: dict[str, str]
) -> None:
    assert newest_by(tmp_path, settings, **faults)[0] != 0
    assert not (tmp_path / "next" / ".ready").exists()
