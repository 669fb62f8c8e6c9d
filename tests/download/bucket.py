"""Small real photos, a bucket that has them, and the downloader's settings for it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from s3_double import S3Double

from theworld.config.schema import ConvertConfig
from theworld.download.download_settings import Settings, base_address
from theworld.download.fetch import Fetcher, FetchSettings
from theworld.download.server import Server

ROOT = Path(__file__).resolve().parents[2]


def image_id(number: int) -> str:
    """Sixteen hex digits; the first one goes round through all of them."""
    return f"{number % 16:x}{number:015x}"


@cache
def photo(number: int, kind: str = "JPEG", side: int = 40) -> bytes:
    """A picture of its own for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side + number % 7, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def objects(count: int, side: int = 40) -> dict[str, bytes]:
    return {f"train/{image_id(number)}.jpg": photo(number, side=side) for number in range(count)}


def make_fetcher(endpoint: str, folder: Path, **changes: Any) -> Fetcher:
    """A fetcher as a worker process has it, writing to ``folder``."""
    (folder / "tmp").mkdir(exist_ok=True)
    settings = {
        "base": base_address(endpoint),
        "target": str(folder),
        "temporary": str(folder / "tmp"),
        "retries": 2,
        "timeout": 5.0,
        "patience": 30.0,
    }
    made = FetchSettings(**(settings | changes))
    return Fetcher(made, Server(made.base, 4, made.timeout))


class Place:
    """A folder with ``entries.json`` that names images, and ``images/`` for them."""

    def __init__(self, folder: Path, endpoint: str, count: int = 0) -> None:
        self.folder, self.endpoint = folder, endpoint
        self.images, self.json, self.list = folder / "images", folder / "entries.json", folder / "list.txt"
        folder.mkdir(exist_ok=True)
        self.write_json(count)

    def write_json(self, count: int) -> None:
        turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "Noise."}]
        entries = [
            {"filename": image_id(number), "conversations": turns, "rle": [], "bbox": []} for number in range(count)
        ]
        self.json.write_text(json.dumps(entries))

    def settings(self, **changes: Any) -> Settings:
        made = {
            "list": None,
            "images": self.images,
            "base": base_address(self.endpoint),
            "workers": 8,
            "retries": 3,
            "timeout": 5.0,
            "source": "images",
            "layout": "flat",
            "to": "images",
            "spool_limit": 1 << 30,
            "retry_missing": False,
            "convert": ConvertConfig(
                json=str(self.json),
                images=str(self.images),
                out=str(self.folder / "mds"),
                workers=1,
                size_limit="64kb",
            ),
        }
        return Settings(**(made | changes))

    def overrides(self) -> list[str]:
        """The YAML and the settings of this place, for any of the commands."""
        return [
            str(ROOT / "yamls" / "smoke.yaml"),
            f"convert.json={self.json}",
            f"convert.images={self.images}",
            f"convert.out={self.folder / 'mds'}",
            "convert.size_limit=64kb",
            f"download.endpoint={self.endpoint}",
        ]

    def command(self, *overrides: str, script: str = "download_openimages") -> list[str]:
        return [sys.executable, str(ROOT / "convert" / f"{script}.py"), *self.overrides(), *overrides]

    def run(self, *overrides: str, script: str = "download_openimages", **keywords: Any):
        """A command of ``convert/`` in the foreground."""
        command = self.command(*overrides, script=script)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **keywords)

    def files(self) -> dict[str, bytes]:
        """Path to content of every file but the downloader's own."""
        paths = [path for path in self.images.rglob("*") if path.is_file()]
        relative = {str(path.relative_to(self.images)): path for path in paths}
        return {name: path.read_bytes() for name, path in relative.items() if not name.startswith(".")}

    def add(self, name: str, content: bytes) -> Path:
        """A file that some other program has left."""
        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def missing(self) -> list[dict[str, Any]]:
        path = self.images / "missing.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def expected(double: S3Double, count: int) -> dict[str, bytes]:
    """The files of a finished flat download of the first ``count`` images."""
    keys = [f"train/{image_id(number)}.jpg" for number in range(count)]
    return {key.partition("/")[2]: double.objects[key] for key in keys if key in double.objects}
