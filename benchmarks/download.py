"""The downloader against the official one's way and other clients, from a local double of S3 with some latency:

    python -m benchmarks.download [--images 3000] [--latency 0.02] [--no-rivals]

The official downloader of OpenImages is a pool of five threads that call boto3's ``download_file``; here it runs with
five, ten and 64. aioboto3 and obstore (the Rust crate object_store, from which s5cmd-like speed is to be expected) keep
64 requests in flight, read each object whole and write it; neither checks what arrived, renames, or remembers. They run
in an environment that is made for them (benchmarks/rivals.py); ``--no-rivals`` leaves them out.

All take the same objects, photos of about 300 kB, from one server process on this machine
(``tests/download/cheap_double.py``); ours is the command itself, its start included, which matters
less the more images there are. Prints images a second, and the processor time that an image takes in the downloader and
in the server: on few cores, which both share, that and not the latency is the limit for photos of 300 kB;
``--side 256`` (20 kB) shows the latency. ``--folder /dev/shm`` leaves the disk out of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.machine import head, row, spread
from benchmarks.rivals import WHY_NOT, environment, version_in

ROOT = Path(__file__).resolve().parents[1]
DISTINCT = 50
OTHERS = ("boto3 10", "boto3 64")
"""Left out where there are too few images to tell anything."""
BUCKET = "open-images-dataset"


class Figures(NamedTuple):
    """Of one run: seconds, the contender's processor seconds, and the server's."""

    wall: float
    processor: float
    served: float


def make_objects(folder: Path, images: int, side: int) -> list[str]:
    """Rendered photos under many ids (links); gives the ids."""
    from theworld.synthetic import generate

    generate(folder / "rendered", samples=DISTINCT, seed=3, size=side)
    photos = sorted((folder / "rendered" / "images").iterdir())
    ids = [f"{number * 0x9E3779B97F4A7C15 % (1 << 64):016x}" for number in range(1, images + 1)]
    (folder / "objects").mkdir()
    for number, name in enumerate(ids):
        os.link(photos[number % DISTINCT], folder / "objects" / f"{name}.jpg")
    (folder / "list.txt").write_text("".join(f"train/{name}\n" for name in ids))
    return ids


def run_boto3(endpoint: str, ids: list[str], out: Path, threads: int) -> None:
    """The official downloader's way: a thread pool over ``Bucket.download_file``, unsigned."""
    import boto3
    import botocore
    from botocore.config import Config

    out.mkdir()
    config = Config(signature_version=botocore.UNSIGNED, max_pool_connections=max(10, threads))
    service: Any = boto3.resource("s3", region_name="us-east-1", endpoint_url=endpoint, config=config)
    bucket = service.Bucket(BUCKET)
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda name: bucket.download_file(f"train/{name}.jpg", str(out / f"{name}.jpg")), ids):
            pass


def run_aioboto3(endpoint: str, ids: list[str], out: Path, requests: int) -> None:
    import aioboto3  # pyright: ignore[reportMissingImports] - in an environment of its own
    import botocore
    from botocore.config import Config

    async def fetch_all() -> None:
        config = Config(signature_version=botocore.UNSIGNED, max_pool_connections=requests)
        session = aioboto3.Session(region_name="us-east-1")
        async with session.client("s3", endpoint_url=endpoint, config=config) as client:

            async def fetch(name: str) -> None:
                answer = await client.get_object(Bucket=BUCKET, Key=f"train/{name}.jpg")
                async with answer["Body"] as body:
                    (out / f"{name}.jpg").write_bytes(await body.read())

            await side_by_side(fetch, ids, requests)

    out.mkdir()
    asyncio.run(fetch_all())


def run_obstore(endpoint: str, ids: list[str], out: Path, requests: int) -> None:
    from obstore.store import S3Store  # pyright: ignore[reportMissingImports] - in an environment of its own

    out.mkdir()
    options: Any = {"allow_http": True}
    store = S3Store(BUCKET, endpoint=endpoint, region="us-east-1", skip_signature=True, client_options=options)

    async def fetch(name: str) -> None:
        answer = await store.get_async(f"train/{name}.jpg")
        (out / f"{name}.jpg").write_bytes(await answer.bytes_async())

    asyncio.run(side_by_side(fetch, ids, requests))


async def side_by_side(fetch: Callable[[str], Awaitable[None]], ids: list[str], requests: int) -> None:
    """Fetch all, so many at a time."""
    left = iter(ids)

    async def work() -> None:
        for name in left:
            await fetch(name)

    await asyncio.gather(*(work() for _ in range(requests)))


def run_ours(endpoint: str, folder: Path, out: Path, workers: int) -> None:
    config = {
        "run_name": "benchmark",
        "global_train_batch_size": 1,
        "model": {"gemma": "builtin:tiny", "cosmos": "builtin:tiny"},
        "convert": {"json": "not read", "images": str(out), "out": "not written"},
        "download": {"list": str(folder / "list.txt"), "endpoint": endpoint, "workers": workers},
    }
    yaml = folder / "benchmark.yaml"
    yaml.write_text(json.dumps(config))
    command = [sys.executable, str(ROOT / "convert" / "download_openimages.py"), str(yaml)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


RIVALS = {"aioboto3": run_aioboto3, "obstore": run_obstore}


def contend(name: str, endpoint: str, folder: Path, out: Path) -> tuple[float, float]:
    """Wall and processor seconds of one contender."""
    ids = [line.partition("/")[2] for line in (folder / "list.txt").read_text().split()]
    before = processor_seconds()
    started = time.perf_counter()
    client, number = name.split()
    if client == "theworld":
        run_ours(endpoint, folder, out, int(number))
    else:
        {"boto3": run_boto3, **RIVALS}[client](endpoint, ids, out, int(number))
    return time.perf_counter() - started, processor_seconds() - before


def processor_seconds() -> float:
    """Of this process and those that it has waited for."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def processor_seconds_of(process: int) -> float:
    """Of another process that runs."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def compare(folder: Path, images: int, latency: float, rounds: int, workers: int, side: int, rivals: bool) -> None:
    python, fault = environment("download") if rivals else (None, WHY_NOT)
    ids = make_objects(folder, images, side)
    size = sum((folder / "objects" / f"{name}.jpg").stat().st_size for name in ids)
    server = subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "tests/download/cheap_double.py"),
            str(folder / "objects"),
            "--latency",
            str(latency),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    endpoint = server.stdout.readline().strip()
    names = [f"theworld {workers}", "boto3 5", *OTHERS[: len(ids) // 100]]
    names += [f"{name} 64" for name in RIVALS] if python else []
    times: dict[str, list[Figures]] = {name: [] for name in names}
    try:
        for _ in range(rounds):
            for name in names:
                out = folder / "out"
                interpreter = python if python and name.split()[0] in RIVALS else sys.executable
                command = [interpreter, "-m", "benchmarks.download", "--contender", name, "--endpoint", endpoint]
                before = processor_seconds_of(server.pid)
                command += ["--folder", str(folder)]
                settings = {**os.environ, "PYTHONPATH": str(ROOT)}
                done = subprocess.run(command, cwd=ROOT, env=settings, stdout=subprocess.PIPE, text=True, check=True)
                wall, processor = map(float, done.stdout.split()[-2:])
                served = processor_seconds_of(server.pid) - before
                assert len(list(out.glob("*.jpg"))) == images
                shutil.rmtree(out)
                os.sync()
                times[name].append(Figures(wall, processor, served))
                print(f"{name}: {wall:.2f} s, processor {processor:.2f} s, server's {served:.2f} s", file=sys.stderr)
    finally:
        server.kill()
        server.wait()
    print_table(times, images, size, latency, rounds)
    for name in RIVALS:
        if python:
            print(f"{name} {version_in(python, name)}")
        else:
            print(row(name, f"not measured: {fault}", *[""] * 6))


def print_table(times: dict[str, list[Figures]], images: int, size: int, latency: float, rounds: int) -> None:
    walls = {name: median(run.wall for run in runs) for name, runs in times.items()}
    official = walls["boto3 5"]
    print(
        f"{images:,} images, {size / 1e6:,.0f} MB, {latency * 1000:.0f} ms before each answer, "
        f"{len(os.sched_getaffinity(0))} cores with the server on them, median of {rounds}"
    )
    columns = ["seconds", "spread", "images/s", "MB/s", "processor ms an image", "the server's"]
    print(head("", *columns, "against the official way"))
    for name, wall in walls.items():
        processor = median(run.processor for run in times[name]) / images * 1000
        served = median(run.served for run in times[name]) / images * 1000
        apart = spread([run.wall for run in times[name]])
        rates = f"{images / wall:,.0f}", f"{size / 1e6 / wall:,.0f}", f"{processor:.2f}", f"{served:.2f}"
        print(row(f"{name} connections", f"{wall:.2f}", apart, *rates, f"{official / wall:.1f}x"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds before each answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--side", type=int, default=1024, help="longest side of the photos, in pixels")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder under $TMPDIR")
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(*contend(options.contender, options.endpoint, options.folder, options.folder / "out"))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="theworld-benchmark-") as folder:
        sizes = options.images, options.latency, options.rounds, options.workers, options.side
        compare(Path(folder), *sizes, not options.no_rivals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
