"""The converter beside MDSWriter, LitData, WebDataset and cp -r, on the same files in one run.

    python -m benchmarks.convert [--images 10000] [--folder DIR] [--workers N] [--rounds 3] [--no-rivals]

Needs about three times the images' size on disk (10,000 images: 9 GB), all of it removed at the end.
LitData, WebDataset and the JSON reader that the others use are in an environment that is made for them
(benchmarks/rivals.py); ``--no-rivals`` leaves out what needs it. MDSWriter runs as one loop, and as one process for
each worker, each with a slice of the parsed JSON and a folder of its own, joined by merge_index, hashed or not.

Each contender is timed in a process of its own, in turn, `rounds` times, and the median counts.
The others' imports are not counted; the converter's whole command is. Files are in the page cache.
Only the converter flushes what it writes to the disk before it counts as written, so there is a
second time that ends, for each, when a sync after it has returned.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from benchmarks.machine import head, row, spread
from benchmarks.rivals import WHY_NOT, environment, version_in
from theworld.data.entries.catalog import Catalog
from theworld.data.entries.columns import columns_with
from theworld.data.entries.scan import scan_images
from theworld.data.entries.source import open_source
from theworld.data.shards.mds import ShardFormat
from theworld.data.shards.shard_plan import plan_shards
from theworld.data.shards.write_shard import ShardWriter
from theworld.synthetic import generate

RENDERED = 400
ROOT = Path(__file__).resolve().parents[1]


def make_raw(folder: Path, images: int) -> None:
    """``images`` entries and image files: a rendered set, copied under other ids until there are enough."""
    rendered = folder / "rendered"
    generate(rendered, min(images, RENDERED))
    entries = json.loads((rendered / "openspatial.json").read_bytes())
    (folder / "images").mkdir()
    with open(folder / "openspatial.json", "w") as out:
        out.write("[")
        for number in range(images):
            entry = dict(entries[number % len(entries)])
            source = rendered / "images" / f"{entry['filename']}.jpg"
            entry["filename"] = f"{number * 2654435761 % 2**32:08x}{number:08x}"
            shutil.copyfile(source, folder / "images" / f"{entry['filename']}.jpg")
            out.write((", " if number else "") + json.dumps(entry))
        out.write("]")
    shutil.rmtree(rendered)


def read_samples(raw: Path) -> Iterator[dict[str, Any]]:
    """What every contender but cp does for a sample: the entry, the file, the size in its header."""
    import ijson  # pyright: ignore[reportMissingImports] - an optional extra

    with open(raw / "openspatial.json", "rb") as file:
        for entry in ijson.items(file, "item", use_float=True):
            yield load_sample({key: entry[key] for key in ("filename", "conversations", "bbox")}, raw)


def load_sample(entry: dict[str, Any], raw: Path) -> dict[str, Any]:
    path = raw / "images" / f"{entry['filename']}.jpg"
    with Image.open(path) as image:
        width, height = image.size
    return {
        "id": entry["filename"],
        "image": path.read_bytes(),
        "width": width,
        "height": height,
        "conversations": entry["conversations"],
        "bbox": entry["bbox"],
        "annotation_size": [height, width],
    }


def run_mdswriter(raw: Path, out: Path, workers: int) -> float:
    from streaming import MDSWriter

    started = time.perf_counter()
    columns = {column.name: column.encoding for column in columns_with()}
    with MDSWriter(columns=columns, out=str(out), hashes=["xxh128"]) as writer:
        for sample in read_samples(raw):
            writer.write(sample)
    return time.perf_counter() - started


def run_mdswriters(raw: Path, out: Path, workers: int, hashes: tuple[str, ...] = ("xxh128",)) -> float:
    """As Streaming's documentation has it for many processes."""
    from streaming.base.util import merge_index

    clock = [time.perf_counter()]
    entries = json.loads((raw / "openspatial.json").read_bytes())
    clock.append(time.perf_counter())
    parts = [(entries[number::workers], raw, out / f"part-{number}", hashes) for number in range(workers)]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        pool.starmap(write_part, parts)
    clock.append(time.perf_counter())
    merge_index(str(out), keep_local=True)
    clock.append(time.perf_counter())
    parsed, written, merged = (after - before for before, after in pairwise(clock))
    print(f"JSON {parsed:.2f} s, writing {written:.2f} s, merge_index {merged:.2f} s", file=sys.stderr)
    return clock[-1] - clock[0]


def write_part(entries: list[dict[str, Any]], raw: Path, out: Path, hashes: tuple[str, ...]) -> None:
    from streaming import MDSWriter

    columns = {column.name: column.encoding for column in columns_with()}
    with MDSWriter(columns=columns, out=str(out), hashes=list(hashes)) as writer:
        for entry in entries:
            writer.write(load_sample(entry, raw))


def run_litdata(raw: Path, out: Path, workers: int) -> float:
    import ijson  # pyright: ignore[reportMissingImports] - an optional extra
    import litdata  # pyright: ignore[reportMissingImports] - an optional extra

    started = time.perf_counter()
    with open(raw / "openspatial.json", "rb") as file:
        entries = [
            {key: entry[key] for key in ("filename", "conversations", "bbox")}
            for entry in ijson.items(file, "item", use_float=True)
        ]
    litdata.optimize(
        partial(load_sample, raw=raw), entries, str(out), chunk_bytes="64MB", num_workers=workers, verbose=False
    )
    return time.perf_counter() - started


def run_webdataset(raw: Path, out: Path, workers: int) -> float:
    from webdataset.writer import ShardWriter  # pyright: ignore[reportMissingImports] - an optional extra

    out.mkdir()
    started = time.perf_counter()
    with ShardWriter(f"{out}/shard-%05d.tar", maxsize=1 << 26, maxcount=1 << 30, verbose=0) as writer:
        for sample in read_samples(raw):
            text = {key: sample[key] for key in ("width", "height", "conversations", "bbox")}
            writer.write({"__key__": sample["id"], "jpg": sample["image"], "json": text})
    return time.perf_counter() - started


def run_copy(raw: Path, out: Path, workers: int) -> float:
    started = time.perf_counter()
    subprocess.run(["cp", "-r", str(raw / "images"), str(out)], check=True)
    return time.perf_counter() - started


def run_theworld(raw: Path, out: Path, workers: int) -> float:
    """The command itself, interpreter start included."""
    settings = {"json": str(raw / "openspatial.json"), "images": str(raw / "images"), "out": str(out)}
    config = {
        "run_name": "benchmark",
        "global_train_batch_size": 1,
        "model": {"gemma": "builtin:tiny", "cosmos": "builtin:tiny"},
        "convert": {**settings, "workers": workers},
    }
    yaml = raw / "benchmark.yaml"
    yaml.write_text(json.dumps(config))
    command = [sys.executable, str(ROOT / "convert" / "to_mds.py"), str(yaml)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        peak = peak_memory(process)
    if process.returncode:
        raise SystemExit(f"the converter failed with exit code {process.returncode}")
    seconds = time.perf_counter() - started
    print(f"largest process of the converter: {peak / 1e6:.0f} MB resident", file=sys.stderr)
    return seconds


def peak_memory(process: subprocess.Popen) -> int:
    """Largest resident size that any one process of the tree had, sampled until it ends."""
    peak = 0
    while True:
        try:
            process.wait(timeout=0.25)
            return peak
        except subprocess.TimeoutExpired:
            watched = psutil.Process(process.pid)
            for one in [watched, *watched.children(recursive=True)]:
                peak = max(peak, resident(one))


def resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:  # it has just ended
        return 0


CONTENDERS: dict[str, Callable[[Path, Path, int], float]] = {
    "theworld": run_theworld,
    "mdswriter": run_mdswriter,
    "mdswriters": run_mdswriters,
    "mdswriters, no hashes": partial(run_mdswriters, hashes=()),
    "litdata": run_litdata,
    "webdataset": run_webdataset,
    "cp -r": run_copy,
}
NAMES = {
    "mdswriter": "plain MDSWriter loop",
    "mdswriters": "MDSWriter in each of the processes, merge_index",
    "mdswriters, no hashes": "the same without hashes",
    "litdata": "LitData optimize",
    "webdataset": "WebDataset tar",
}
RIVALS = ("mdswriter", "litdata", "webdataset")
"""What needs the rivals' environment: two themselves, and what reads the JSON bit by bit."""


def time_contender(name: str, raw: Path, folder: Path, workers: int, python: str) -> tuple[float, float]:
    """Seconds of one run in a fresh process, and seconds until its output is on the disk."""
    out = folder / "out"
    os.sync()
    command = [python, "-m", "benchmarks.convert", "--contender", name, "--folder", str(raw), "--workers", str(workers)]
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--out", str(out)], cwd=ROOT, env=settings, stdout=subprocess.PIPE, text=True, check=False
    )
    started = time.perf_counter()
    os.sync()
    flushed = time.perf_counter() - started
    shutil.rmtree(out, ignore_errors=True)
    if done.returncode:
        raise SystemExit(f"{name} failed with exit code {done.returncode}")
    seconds = float(done.stdout.split()[-1])
    return seconds, seconds + flushed


def time_growth(raw: Path, folder: Path, workers: int, images: int) -> tuple[float, float]:
    """Seconds of a run that adds the last 1 % of the images, and of one with nothing new."""
    late = folder / "late"
    late.mkdir()
    paths = sorted((raw / "images").iterdir())[: max(1, images // 100)]
    for path in paths:
        path.rename(late / path.name)
    out = folder / "out"
    run_theworld(raw, out, workers)
    for path in paths:
        (late / path.name).rename(path)
    seconds = run_theworld(raw, out, workers), run_theworld(raw, out, workers)
    shutil.rmtree(out)
    return seconds


def time_stages(raw: Path, folder: Path) -> dict[str, float]:
    """Seconds of each stage of the converter, one after the other in this process alone."""
    state = folder / "stages"
    for part in ("train", "fragments"):
        (state / part).mkdir(parents=True)
    source = open_source(str(raw / "openspatial.json"), None)
    catalog = Catalog(state, source.identity, keep_masks=False)
    clock = [time.perf_counter()]

    def lap() -> float:
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    scan = scan_images(raw / "images")
    seconds = {"list the images": lap()}
    for _ in catalog.blocks(source.fetch):
        pass
    seconds["parse, check and index the JSON"] = lap()
    layout = ShardFormat(1 << 26)
    jobs = list(plan_shards(catalog.blocks(source.fetch), scan, layout, 0.0, None))
    seconds["plan the shards"] = lap()
    writer = ShardWriter(raw / "images", catalog.records, state, layout, decode=False)
    written = [(job, writer.write(job)) for job in jobs]
    seconds["read, check, hash and write the images"] = lap()
    for job, shard in written:
        writer.finish(job, shard)
    seconds["flush the shards to the disk"] = lap()
    shutil.rmtree(state)
    return seconds


def compare(folder: Path, images: int, workers: int, rounds: int, rivals: bool, chosen: list[str]) -> None:
    python, fault = environment("loader") if rivals else (None, WHY_NOT)
    raw = folder / "raw"
    raw.mkdir()
    print(f"rendering and copying {images:,} images ...", file=sys.stderr)
    make_raw(raw, images)
    size = sum(entry.stat().st_size for entry in os.scandir(raw / "images"))
    names = [name for name in chosen if python or name not in RIVALS]
    time_contender(
        "cp -r", raw, folder, workers, sys.executable
    )  # not counted: the first to write here waits for the disk to grow
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            interpreter = python if python and name in RIVALS else sys.executable
            times[name].append(time_contender(name, raw, folder, workers, interpreter))
            print(f"round {number + 1}: {name}: {times[name][-1][0]:.2f} s", file=sys.stderr)
    medians = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in times.items()}
    own, own_on_disk = medians["theworld"]
    print(f"{images:,} images, {size / 1e6:,.0f} MB, {workers} workers, median of {rounds}")
    print(head("", "seconds", "spread", "images/s", "MB/s", "the converter is", "until on disk", "the converter is"))
    for name, (seconds, on_disk) in medians.items():
        apart = spread([run[0] for run in times[name]])
        ratios = [f"{seconds / own:.2f}x as fast", f"{on_disk / own_on_disk:.2f}x as fast"]
        if name == "theworld":
            ratios = ["", ""]
        speeds = [f"{seconds:.2f}", apart, f"{images / seconds:,.0f}", f"{size / 1e6 / seconds:,.0f}"]
        title = NAMES.get(name, name)
        if python and name in ("litdata", "webdataset"):
            title += f" {version_in(python, name)}"
        print(row(title, *speeds, ratios[0], f"{on_disk:.2f} s", ratios[1]))
    for name in [one for one in chosen if one in RIVALS and python is None]:
        print(row(NAMES[name], f"not measured: {fault}", *[""] * 6))
    grown, nothing = time_growth(raw, folder, workers, images)
    share = grown / own
    print("Where the time goes, in one process without overlap:")
    for stage, spent in time_stages(raw, folder).items():
        print(f"- {stage}: {spent:.2f} s, {spent / images * 1e6:.0f} us an image")
    print(f"1 % new: {grown:.2f} s, {share:.1%} of a full conversion; nothing new: {nothing:.2f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder under $TMPDIR")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--contender", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(CONTENDERS[options.contender](options.folder, options.out, options.workers))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="theworld-benchmark-") as folder:
        compare(Path(folder), options.images, options.workers, options.rounds, not options.no_rivals, options.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
