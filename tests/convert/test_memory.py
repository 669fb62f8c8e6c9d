"""Memory does not grow with the data: far more entries and images than fit if they were kept as objects."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from raw_folder import Raw, image_bytes, name

pytestmark = pytest.mark.slow

ENTRIES = 120_000
LINKS = 20_000  # ext4 allows 65,000 links to a file
LIMIT = 200 << 20


def make_large(raw: Raw) -> None:
    """Entries of 3 kB each, 360 MB of JSON; every second image is there."""
    rle = ", ".join(['{"size": [683, 1024], "counts": "' + "b:m5]?0O1O2N1O" * 18 + '"}'] * 11)
    with open(raw.json, "w") as out:
        for number in range(ENTRIES):
            turns = f'[{{"from": "human", "value": "What?"}}, {{"from": "gpt", "value": "It is {number}."}}]'
            start = "[" if number == 0 else ", "
            out.write(f'{start}{{"filename": "{name(number)}", "conversations": {turns}, "rle": [{rle}], "bbox": []}}')
        out.write("]")
    for number in range(0, ENTRIES, 2):
        if number % (2 * LINKS) == 0:
            source = raw.folder / f"source-{number}.jpg"
            source.write_bytes(image_bytes(number, size=(16, 11)))
        os.link(source, raw.images / f"{name(number)}.jpg")


def largest(process: psutil.Process) -> int:
    """Resident bytes of the largest process of the tree; 0 if one of them has just ended."""
    try:
        return max(one.memory_info().rss for one in [process, *process.children(recursive=True)])
    except psutil.Error:
        return 0


def test_each_process_stays_small(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw", 0)
    make_large(raw)
    assert raw.json.stat().st_size > LIMIT
    peak = 0
    with subprocess.Popen(raw.command("convert.size_limit=256kb"), stdout=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, largest(watched))
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.1)
    assert process.returncode == 0
    assert len(raw.ids()) == ENTRIES // 2
    print(f"largest process: {peak >> 20} MB")
    assert peak < LIMIT
