"""What the downloader remembers between runs, in ``.download`` of the image folder.

``whole`` holds one row of 24 bytes for each file that was seen to be whole: its key, size and
modification time. ``missing.jsonl``, in the image folder itself, lists what the server does not
have. Both only grow by appending, so that a kill costs at most a torn last row or line.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from theworld.data.entries.check_entry import id_key
from theworld.data.entries.downloaded import MISSING, WHOLE, missing_keys, read_missing
from theworld.data.entries.images import ImageTable, positions
from theworld.files import atomic_write, read_json, write_bytes, write_json

ROW = np.dtype([("key", "<u8"), ("size", "<i8"), ("mtime_ns", "<i8")])


class State:
    """The folder ``.download`` and ``missing.jsonl`` beside it.

    Args:
        images: the image folder.
        folder: ``.download`` in it.
    """

    def __init__(self, images: Path, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self._whole = folder / WHOLE
        self._missing = images / MISSING
        self._answered = folder / "answered.json"
        self._finished = folder / "finished.json"

    # ---- files that are whole

    def whole_rows(self, images: ImageTable) -> np.ndarray:
        """(n,) bool: which rows of the table were seen to be whole and have not changed since."""
        result = np.zeros(len(images), bool)
        try:
            rows = np.fromfile(self._whole, ROW, self._whole.stat().st_size // ROW.itemsize)
        except FileNotFoundError:
            return result
        places, there = positions(images.keys, rows["key"])
        same = there.copy()
        same[there] = (images.sizes[places[there]] == rows["size"][there]) & (
            images.mtimes[places[there]] == rows["mtime_ns"][there]
        )
        result[places[same]] = True
        return result

    def add_whole(self, rows: Iterable[tuple[int, int, int]]) -> None:
        """Remember files: key, size, modification time."""
        content = np.array(list(rows), ROW)
        if not len(content):
            return
        with open(self._whole, "ab") as file:
            torn = file.tell() % ROW.itemsize
            if torn:  # a kill in the middle of a row
                file.truncate(file.tell() - torn)
            file.write(content.tobytes())

    def save_whole(self, images: ImageTable, rows: np.ndarray) -> None:
        """Replace what is remembered by the rows (n,) bool of the table, so that it does not grow with each run."""
        content = np.zeros(int(rows.sum()), ROW)
        content["key"], content["size"], content["mtime_ns"] = (
            images.keys[rows],
            images.sizes[rows],
            images.mtimes[rows],
        )
        write_bytes(self._whole, content.tobytes())

    # ---- images that the server does not have

    def missing(self) -> dict[str, dict[str, Any]]:
        """Id to line of missing.jsonl."""
        return read_missing(self._missing.parent)

    def add_missing(self, lines: Iterable[dict[str, Any]]) -> None:
        """Append to missing.jsonl: ``id``, ``key``, ``status``, ``reason``."""
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        if not content:
            return
        with open(self._missing, "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    content = b"\n" + content
            file.write(content)
            file.flush()

    def save_missing(self, lines: dict[str, dict[str, Any]]) -> None:
        """Replace missing.jsonl; removed when there is nothing to list."""
        if not lines:
            self._missing.unlink(missing_ok=True)
            return
        if lines == self.missing() and count_lines(self._missing) == len(lines):
            return
        with atomic_write(self._missing) as file:
            for line in lines.values():
                file.write(json.dumps(line).encode() + b"\n")

    def drop_missing(self, keys: np.ndarray) -> None:
        """Take images (n,) uint64 out of missing.jsonl: they are there now."""
        lines = self.missing()
        own = np.array([id_key(name) for name in lines], np.uint64)
        _, there = positions(np.sort(keys), own)
        self.save_missing({name: line for (name, line), found in zip(lines.items(), there, strict=True) if not found})

    def missing_keys(self) -> np.ndarray:
        """(n,) uint64, sorted: keys of the ids in missing.jsonl."""
        return missing_keys(self._missing.parent)

    # ---- notes

    def has_answered(self, base: str) -> bool:
        """Whether this address ever gave an answer: then silence is an outage, not a wrong address."""
        return read_json(self._answered) == base

    def note_answer(self, base: str) -> None:
        if not self.has_answered(base):
            write_json(self._answered, base)

    def finished(self, wanted: str) -> bool:
        """Whether the latest run got everything there is of these wanted images; False while one is at work.

        Args:
            wanted: names a state of the list or JSON, :func:`theworld.download.wanted.digest_of`.
        """
        return read_json(self._finished) == wanted

    def note_finished(self, wanted: str | None) -> None:
        if wanted is None:
            self._finished.unlink(missing_ok=True)
            return
        write_json(self._finished, wanted)

    def clear_temporary(self) -> None:
        """An empty folder for files being written. Only while no other download runs."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir(parents=True)


def count_lines(path: Path) -> int:
    try:
        with open(path, "rb") as file:
            return sum(1 for _ in file)
    except FileNotFoundError:
        return 0
