"""What grows with the data set and what does not: seconds and memory from 1,000 samples to all, and shards a node.

    python -m benchmarks.scale [--samples 1000 ...] [--generations 1 ...] [--ranks 512] [--passes 10]
        [--folder DIR] [--audit-only] [--nodes-only]

Makes image files without content, the JSON that names them, a data set that holds them all, of which only what is read
here is written (indices and ids, no shards), and a run's ledger. Each figure is taken in a process of its own:

- start: what rank 0 reads of the ledger to know where a run goes on; order: of a pass that had taken up all generations
  but one; open: of the data set for reading; memory: what order and data set add to a rank.
- convert: a conversion with nothing new, after one that had listed the folder.
- audit: the command, over one pass.

The second table is the audit of a run of many passes. The third plays the order of a pass through for a node of 1, 8
and 64, whose cache holds all that it fetches.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from theworld.config.load import load_config

if TYPE_CHECKING:  # a conversion is measured without torch, which these import
    from theworld.data.batches.order import Indices, Stage

ROOT = Path(__file__).resolve().parents[1]
FULL_SIZE = 909_419
PER_SHARD = 200
IMAGE_BYTES = 308_000
BATCH = 512
COLUMNS = {
    "annotation_size": "json",
    "bbox": "json",
    "conversations": "json",
    "height": "int32",
    "id": "str",
    "image": "bytes",
    "width": "int32",
}


# ---- what is measured


def make_ids(samples: int) -> list[str]:
    return [f"{number:016x}" for number in np.random.default_rng(1).integers(0, 2**63, samples).tolist()]


def write_raw(folder: Path, ids: list[str]) -> None:
    """The JSON, and image files without content in 256 directories."""
    for number in range(256):
        (folder / "images" / f"{number:02x}").mkdir(parents=True)
    for one in ids:
        os.close(os.open(folder / "images" / one[-2:] / f"{one}.jpg", os.O_CREAT | os.O_WRONLY))
    conversation = [{"from": "human", "value": "<image>\nHow wide is it?"}, {"from": "gpt", "value": "One metre."}]
    with (folder / "entries.json").open("w") as file:
        for number, one in enumerate(ids):
            entry = {"filename": one, "conversations": conversation, "rle": [], "bbox": []}
            file.write(("," if number else "[") + json.dumps(entry) + "\n")
        file.write("]")


def settings_of(folder: Path) -> list[str]:
    smoke = str(ROOT / "yamls" / "smoke.yaml")
    return [
        smoke,
        f"convert.json={folder}/entries.json",
        f"convert.images={folder}/images",
        f"convert.out={folder}/out",
    ]


def shard_entry(number: int, samples: int) -> dict[str, Any]:
    return {
        "column_encodings": list(COLUMNS.values()),
        "column_names": list(COLUMNS),
        "column_sizes": [4 if kind == "int32" else None for kind in COLUMNS.values()],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "raw_data": {"basename": f"shard.{number:05}.mds", "bytes": samples * IMAGE_BYTES, "hashes": {}},
        "samples": samples,
        "size_limit": 1 << 26,
        "version": 2,
        "zip_data": None,
    }


def write_data_set(folder: Path, ids: list[str], generations: int) -> list[dict[str, Any]]:
    """The indices and ids of a data set; what the manifest says of its generations."""
    from theworld.data.shards.convert_settings import check_settings
    from theworld.data.shards.dataset import DataSet

    for old in (folder / "out").glob("gen-*"):
        shutil.rmtree(old)
    for number, part in enumerate(np.array_split(np.arange(len(ids)), generations)):
        generation = folder / "out" / f"gen-{number:05}"
        generation.mkdir(parents=True)
        (generation / "ids.txt").write_text("".join(f"{ids[row]}\n" for row in part))
        sizes = [min(PER_SHARD, len(part) - first) for first in range(0, len(part), PER_SHARD)]
        shards = [shard_entry(place, size) for place, size in enumerate(sizes)]
        (generation / "index.json").write_text(json.dumps({"shards": shards, "version": 2}))
    lasting = check_settings(load_config(settings_of(folder)).convert).lasting()
    return DataSet(folder / "out").refresh(lasting, len(ids), len(ids))["generations"]


def growing_pass(generations: list[dict[str, Any]]) -> list[Stage]:
    """A pass that took up a generation each time half of what was new had been read."""
    from theworld.data.batches.order import Stage

    stages: list[Stage] = []
    known = position = 0
    for generation in generations:
        stages.append(Stage(position, known + generation["samples"], BATCH))
        position += generation["samples"] // 2 // BATCH * BATCH
        known += generation["samples"]
    return stages


# ---- measuring, in a process of its own


def megabytes(what: str) -> float:
    """MB that this process has in memory (VmRSS) or has had at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(what))


def measure_reading(folder: Path) -> dict[str, float]:
    from theworld.data.batches.order import Shuffle, pass_order
    from theworld.data.batches.passes import PassDataset
    from theworld.data.batches.sources import Source
    from theworld.train.callbacks.ledger import newest_attempt
    from theworld.train.failures import last_step

    generations = json.loads((folder / "out" / "manifest.json").read_text())["generations"]
    began = time.perf_counter()
    newest_attempt(folder / "run")
    last_step(folder / "run")
    start, before = time.perf_counter() - began, megabytes("VmRSS")
    began = time.perf_counter()
    shuffle = Shuffle(True, 17, 0, num_canonical_nodes=8)
    dataset = PassDataset(Source(None, str(folder / "out")), shuffle, BATCH, lambda *_: None)  # pyright: ignore[reportArgumentType] - nothing is read
    opened = time.perf_counter() - began
    began = time.perf_counter()
    dataset.order = pass_order(growing_pass(generations), dataset.snapshot.shard_sizes, shuffle)
    ordered = time.perf_counter() - began
    held = megabytes("VmRSS") - before
    dataset.close()
    return {"start": start, "open": opened, "order": ordered, "rank_mb": held}


def measure_convert(folder: Path) -> dict[str, float]:
    from theworld.data.entries import scan
    from theworld.data.shards.convert import convert

    scan.SETTLED = 0  # the image files have just been made, by the same clock
    config = load_config(settings_of(folder)).convert
    began = time.perf_counter()
    report = convert(config)
    assert report.written == 0
    return {"convert": time.perf_counter() - began, "convert_mb": megabytes("VmHWM")}


def in_process(what: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", what, "--folder", str(folder)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def measure_audit(folder: Path) -> dict[str, float]:
    began = time.perf_counter()
    command = [sys.executable, "recipes/audit.py", str(folder / "run"), str(folder / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {"audit": time.perf_counter() - began}


def measure_sizes(sizes: list[int], generation_counts: list[int], ranks: int, scratch: Path | None) -> None:
    from benchmarks.audit import write_run

    columns = ("start", "open", "order", "rank_mb", "convert", "convert_mb", "audit")
    names = ("start s", "open s", "order s", "a rank MB", "no-op convert s", "convert MB", "audit s")
    print(f"| samples | generations | {' | '.join(names)} |")
    print("|---" * (len(names) + 2) + "|")
    for samples in sizes:
        with tempfile.TemporaryDirectory(dir=scratch) as name:
            folder, ids = Path(name), make_ids(samples)
            write_raw(folder, ids)
            for number, count in enumerate(generation_counts):
                generations = write_data_set(folder, ids, count)
                shutil.rmtree(folder / "run", ignore_errors=True)
                write_run(folder / "run", ids, ranks, 1, BATCH, generations)
                if number == 0:
                    in_process("convert", folder)  # reads the JSON and lists the folder
                found = {
                    **in_process("reading", folder),
                    **in_process("convert", folder),
                    **measure_audit(folder),
                }
                figures = [f"{found[column]:,.0f}" if "mb" in column else f"{found[column]:.2f}" for column in columns]
                print(f"| {samples:,} | {count} | {' | '.join(figures)} |", flush=True)


def show_audit(samples: int, ranks: int, passes: int, scratch: Path | None) -> None:
    """The audit of a whole run."""
    from benchmarks.audit import measure

    code, seconds, peak = measure(samples, ranks, passes, BATCH, scratch)
    assert code == 0
    print("\n| samples | ranks | passes | audit s | audit MB |")
    print("|---" * 5 + "|")
    print(f"| {samples:,} | {ranks} | {passes} | {seconds:.0f} | {peak * 1.048576:,.0f} |", flush=True)


# ---- shards a node


def most_new(order: Indices) -> int:
    """The most shards that a batch is the first to need, from the ninth batch on; 0 if there is none."""
    _, first = np.unique(order // PER_SHARD, return_index=True)
    return int(np.bincount(first // BATCH)[8:].max(initial=0))


def show_nodes(samples: int) -> None:
    from theworld.data.batches.fetches import NodeShare, count_fetches, shards_of_node
    from theworld.data.batches.order import Shuffle, Stage, pass_order

    sizes = [PER_SHARD] * (samples // PER_SHARD) + [samples % PER_SHARD] * (samples % PER_SHARD > 0)
    in_bytes = [size * IMAGE_BYTES for size in sizes]
    print(f"\n{samples:,} samples in {len(sizes):,} shards, {sum(in_bytes) / 1e9:,.0f} GB; batches of {BATCH}\n")
    print("| nodes | `num_canonical_nodes` | shards a node | GB a node | GB all nodes | most new shards in a batch |")
    print("|---|---|---|---|---|---|")
    for nodes, parts in ((1, 8), (8, 8), (64, 8), (64, 64)):
        order = pass_order([Stage(0, samples, BATCH)], sizes, Shuffle(True, 17, 0, parts))
        found = [
            count_fetches(shards_of_node(order, sizes, NodeShare(BATCH, node, nodes)), in_bytes, sum(in_bytes))
            for node in range(nodes)
        ]
        most = max(found, key=lambda one: one.bytes)
        total = sum(one.bytes for one in found)
        figures = f"{most.fetched:,} | {most.bytes / 1e9:,.1f} | {total / 1e9:,.0f} | {most_new(order)}"
        print(f"| {nodes} | {parts} | {figures} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[1_000, 10_000, 100_000, FULL_SIZE])
    parser.add_argument("--generations", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--ranks", type=int, default=512, help="of the run that is resumed and audited")
    parser.add_argument("--folder", type=Path, help="where to write; default: $TMPDIR")
    parser.add_argument("--passes", type=int, default=10, help="of the run whose audit is the second table")
    parser.add_argument("--audit-only", action="store_true", help="the second table only")
    parser.add_argument("--nodes-only", action="store_true", help="the third table only")
    parser.add_argument("--measure", choices=["reading", "convert"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps((measure_reading if given.measure == "reading" else measure_convert)(given.folder)))
        return
    if not given.nodes_only and not given.audit_only:
        measure_sizes(given.samples, given.generations, given.ranks, given.folder)
    if not given.nodes_only:
        show_audit(max(given.samples), given.ranks, given.passes, given.folder)
    if not given.audit_only:
        show_nodes(max(given.samples))


if __name__ == "__main__":
    main()
