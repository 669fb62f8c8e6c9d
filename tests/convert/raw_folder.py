"""Small raw data sets for the converter's tests: real JPEG files, real entries."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from theworld.config.schema import ConvertConfig

ROOT = Path(__file__).resolve().parents[2]
STATE = ".convert"


def image_bytes(number: int, kind: str = "JPEG", size: tuple[int, int] | None = None) -> bytes:
    """A small picture of its own for each number; sizes vary too."""
    noise = np.random.default_rng(number)
    width, height = size or (40 + number % 7, 30 + number % 5)
    pixels = noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def entry(number: int, **changes: Any) -> dict[str, Any]:
    """A good entry with as many boxes as <mask> tokens; ``changes`` replace keys."""
    boxes = [[float(number), 1.5, 20.25 + index, 3.0] for index in range(number % 3)]
    question = "<image>\nWhat of " + " ".join(["<mask> <depth>"] * len(boxes)) + "?"
    made = {
        "filename": name(number),
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": f"It is {number} ü."}],
        "rle": [{"size": [30 + number % 5, 40 + number % 7], "counts": "b:m5]?\\[0"}] * len(boxes),
        "bbox": boxes,
    }
    return made | changes


def name(number: int) -> str:
    return f"{number:016x}"


class Raw:
    """A folder with ``entries.json``, ``images/`` and, once converted, ``out/``."""

    def __init__(self, folder: Path, entries: int = 40) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.json = folder / "entries.json"
        self.out = folder / "out"
        self.images.mkdir(parents=True)
        self.write_json([entry(number) for number in range(entries)])

    def write_json(self, entries: list[Any]) -> None:
        self.json.write_text(json.dumps(entries))

    def add_images(self, *numbers: int) -> None:
        for number in numbers:
            (self.images / f"{name(number)}.jpg").write_bytes(image_bytes(number))

    def config(self, **changes: Any) -> ConvertConfig:
        """Settings with shards of a few samples each."""
        settings = {
            "json": str(self.json),
            "images": str(self.images),
            "out": str(self.out),
            "workers": 2,
            "size_limit": "16kb",
        }
        return ConvertConfig(**(settings | changes))

    def command(self, *overrides: str, yaml: str = "") -> list[str]:
        """``convert/to_mds.py`` with the same settings."""
        path = self.folder / "config.yaml"
        path.write_text(
            yaml
            or "run_name: test\nglobal_train_batch_size: 1\nmodel: {gemma: 'builtin:tiny', cosmos: 'builtin:tiny'}\n"
            f"convert: {{json: {self.json}, images: {self.images}, out: {self.out}, workers: 2, size_limit: 16kb}}\n"
        )
        return [sys.executable, str(ROOT / "convert" / "to_mds.py"), str(path), *overrides]

    def run(self, *overrides: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*overrides), capture_output=True, text=True, check=False, **keywords)

    def rejected(self) -> dict[str, str]:
        """Id to reason."""
        lines = (self.out / "rejected.jsonl").read_text().splitlines()
        return {line["id"]: line["reason"] for line in map(json.loads, lines)}

    def ids(self) -> list[str]:
        """Ids in the order of the generations' own lists."""
        manifest = json.loads((self.out / "manifest.json").read_text())
        folders = [self.out / generation["name"] for generation in manifest["generations"]]
        return [line for folder in folders for line in (folder / "ids.txt").read_text().splitlines()]


def hashes(folder: Path) -> dict[str, str]:
    """Path to SHA-256 of every file that readers see."""
    found = {}
    for directory, folders, files in os.walk(folder):
        if STATE in folders:
            folders.remove(STATE)
        for file in files:
            path = Path(directory) / file
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
