"""What a download leaves in the image folder for others to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from theworld.data.entries.check_entry import id_key

MISSING = "missing.jsonl"
"""Images that the server does not have."""
STATE = ".download"
"""Folder of what the downloader remembers; hidden, so that the converter passes over it."""
WHOLE = "whole"
"""In :data:`STATE`: grows with each image that arrives."""


def read_missing(images: Path) -> dict[str, dict[str, Any]]:
    """Id to line of missing.jsonl; of several lines for an id the last counts."""
    found = {}
    try:
        with open(images / MISSING, encoding="utf-8", errors="replace") as lines:
            for text in lines:
                try:
                    line = json.loads(text)
                    found[line["id"]] = line
                except (ValueError, TypeError, KeyError):
                    continue  # torn by a kill: that image is asked for once more
    except FileNotFoundError:
        return {}
    return found


def missing_keys(images: Path) -> np.ndarray:
    """(n,) uint64, sorted: keys of the ids in missing.jsonl."""
    return np.sort(np.array([id_key(name) for name in read_missing(images)], np.uint64))


def last_arrival(images: Path) -> int | None:
    """When the downloader last noted an image, in nanoseconds since 1970; None if none is known here."""
    try:
        return (images / STATE / WHOLE).stat().st_mtime_ns
    except OSError:
        return None
