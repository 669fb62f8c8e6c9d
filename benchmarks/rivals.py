"""Environments for the rivals that do not fit beside the project's pins, made on first use in ``benchmarks/out``.

Such an environment sees everything that this interpreter sees, torch and transformers among it, and in front of that
the packages of ``benchmarks/rivals_NAME.txt``: versions that were run together, installed without their dependencies'
say, so that nothing is resolved anew. Nothing in the project's own environment changes.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
WHY_NOT = "left out by --no-rivals"


def environment(name: str) -> tuple[str | None, str]:
    """An environment's interpreter, made if it is not there yet; None and the reason if it cannot be made.

    Args:
        name: of the list of packages: ``loader`` or ``download``.
    """
    listed = HERE / f"rivals_{name}.txt"
    folder = HERE / "out" / f"env-{name}"
    python, made = folder / "bin" / "python", folder / "made.txt"
    wanted = f"{sys.executable} {sys.version}\n{listed.read_text()}"
    if made.is_file() and made.read_text() == wanted:
        return str(python), ""
    print(f"installing {listed.name} into an environment of its own ...", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True, symlinks=True)
    own = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (own / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(listed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return None, next((line for line in lines if line.startswith("ERROR")), "pip failed").replace("|", "/")
    made.write_text(wanted)
    return str(python), ""


def version_in(python: str, package: str) -> str:
    """The version of a package that an interpreter sees."""
    ask = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
