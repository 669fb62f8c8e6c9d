"""What checking the pictures costs, and whether it rejects good ones: header, decode (``convert.verify``) and Pillow.

    python -m benchmarks.check_images [--pictures 40] [--samples 2000] [--workers 2] [--rounds 3] [--more DIR]

Cost: processor milliseconds of one core for a photo, median of the rounds, and the same of the whole converter, its
start included, with ``--samples`` photos under either check, beside its photos a second by the clock. Rejected: of
whole JPEGs of many kinds by all encoders that are installed (Debian: libjpeg-turbo-progs imagemagick graphicsmagick
ffmpeg libvips-tools), none of which may be; and of copies that have lost something but not their end marker, which only
``decode`` finds. ``--more``: a folder with good JPEGs of your own, which count as well. Leaves with 1 if a good one is
rejected.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from tests.helpers.good_jpegs import damaged_jpegs, good_jpegs
from theworld.data.entries.headers import BadImage, check_image
from theworld.synthetic import generate

ROOT = Path(__file__).resolve().parents[1]
SIDE = 330
"""Of the pictures that are written in all kinds."""
RENDERED = 400


def by_header(data: bytes) -> None:
    check_image(data, ".jpg")


def by_decoding(data: bytes) -> None:
    check_image(data, ".jpg", decode=True)


def by_pillow(data: bytes) -> None:
    """What most loaders do, and call it checked."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Exception as error:  # Pillow's plugins raise many kinds for damaged data
        raise BadImage("image does not decode", repr(error)) from error


CHECKS: dict[str, Callable[[bytes], None]] = {"header": by_header, "decode": by_decoding, "Pillow": by_pillow}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--more", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        generate(folder, min(RENDERED, max(given.pictures, given.samples)))
        photos = [path.read_bytes() for path in sorted((folder / "images").glob("*.jpg"))]
        print_costs(photos[: given.pictures], given.rounds)
        if given.samples:
            print_conversions(folder, given.samples, given.workers)
        return print_rejections(photos[: given.pictures], given.more, folder)


def print_costs(photos: list[bytes], rounds: int) -> None:
    """Of each check, for one photo."""
    width, height = check_image(photos[0], ".jpg")
    size = statistics.mean(map(len, photos)) / 1000
    print(
        f"{len(photos)} photos of {width} x {height} and {size:.0f} kB, one core, milliseconds of processor time each:"
    )
    for name, check in CHECKS.items():
        taken = [seconds(check, photos) for _ in range(rounds)]
        print(f"  {name:8} {1000 * statistics.median(taken) / len(photos):7.3f}")


def seconds(check: Callable[[bytes], None], photos: Iterable[bytes]) -> float:
    began = time.process_time()
    for data in photos:
        check(data)
    return time.process_time() - began


def print_conversions(folder: Path, samples: int, workers: int) -> None:
    """The command itself, its start included, with the files in the page cache."""
    raw = folder / "raw"
    copy_samples(folder, raw, samples)
    print(f"{samples} photos to shards, {workers} workers, the start included:")
    for name in ("header", "decode"):
        config = {
            "run_name": "benchmark",
            "global_train_batch_size": 1,
            "model": {"gemma": "builtin:tiny", "cosmos": "builtin:tiny"},
            "convert": {
                "json": str(raw / "openspatial.json"),
                "images": str(raw / "images"),
                "out": str(folder / name),
                "workers": workers,
                "verify": name,
            },
        }
        yaml = folder / f"{name}.yaml"
        yaml.write_text(json.dumps(config))
        began, used = time.monotonic(), children_seconds()
        command = [sys.executable, str(ROOT / "convert" / "to_mds.py"), str(yaml)]
        subprocess.run(command, check=True, capture_output=True)
        used = children_seconds() - used
        rate = samples / (time.monotonic() - began)
        print(f"  {name:8} {1000 * used / samples:7.3f} ms of processor time a photo, {rate:.0f} photos/s")


def children_seconds() -> float:
    """Processor time of the processes that this one has started and seen end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def copy_samples(rendered: Path, raw: Path, samples: int) -> None:
    """So many entries and links to photos, under ids of their own."""
    entries = json.loads((rendered / "openspatial.json").read_bytes())
    (raw / "images").mkdir(parents=True)
    many = []
    for number in range(samples):
        entry = dict(entries[number % len(entries)])
        source = rendered / "images" / f"{entry['filename']}.jpg"
        entry["filename"] = f"{number:016x}"
        (raw / "images" / f"{entry['filename']}.jpg").hardlink_to(source)
        many.append(entry)
    (raw / "openspatial.json").write_text(json.dumps(many))


def print_rejections(photos: list[bytes], more: Path | None, folder: Path) -> int:
    """Good and damaged JPEGs by encoder and by kind of damage. Returns the exit code."""
    files: Counter[str] = Counter()
    rejected: dict[str, Counter[str]] = {name: Counter() for name in CHECKS}
    wrong: set[str] = set()

    def judge(group: str, kind: str, data: bytes, good: bool) -> None:
        files[group] += 1
        for name, check in CHECKS.items():
            try:
                check(data)
            except BadImage as error:
                rejected[name][group] += 1
                if good:
                    wrong.add(f"{name} rejects {group}, {kind}: {error.detail}")

    for number, photo in enumerate(photos):
        picture = Image.open(io.BytesIO(photo)).convert("RGB").resize((SIDE, SIDE - number % 17))
        for encoder, kind, data in good_jpegs(picture, folder):
            judge(encoder, kind, data, True)
        for kind, data in damaged_jpegs(photo).items():
            judge(f"damaged: {kind}", kind, data, False)
    for path in sorted(more.rglob("*.jpg")) if more else []:
        judge(f"more: {path.parent.name}", path.name, path.read_bytes(), True)
    print(f"rejected: {'':20} {'files':>7}" + "".join(f"{name:>9}" for name in CHECKS))
    for group, count in files.items():
        print(f"  {group:28} {count:7}" + "".join(f"{rejected[name][group]:9}" for name in CHECKS))
    for line in sorted(wrong):
        print(f"a good one: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
