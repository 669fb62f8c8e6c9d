"""What a batch costs from the shard to the training process: this loader, its rivals and the bare limit, in one run.

    python -m benchmarks.loader [--samples 96] [--batch 8] [--rounds 3] [--gemma FOLDER] [--no-rivals]

All read the same photos of the built-in sample (1,024 pixels, some ten turns), each from its own format, in one worker
process, and give the same tensors: pixels at 896 and at 512, token ids, labels. That they are the same is checked: ids
and labels are compared, and by how many grey levels pixels differ. Nothing is shuffled, all files are cached.

- bare limit: JPEGs in memory decoded and resized twice by the fastest way, nothing else; no boxes, no text.
- TheWorld: this recipe's loader over the converter's shards.
- the old way: map-style over the parsed JSON and loose files, Pillow and transformers' slow processor.
- each rival with transformers' fast processor in its collate function, as its users have it (floats leave the worker).
- each rival with this recipe's transform instead: then only the way of reading differs.

CPU time is that of all processes, from the first batch's arrival to the last one's. Memory is the
worker's own (USS) at the end. Every contender has a process of its own, and reads its samples ``rounds`` times.
Rivals come from an environment that this script makes (benchmarks/rivals.py), with the versions in the table.
``--no-rivals`` leaves out what is not installed: it needs no network. Without ``--gemma``, a folder with the released
processor, the tokenizer is the tiny one, which splits text into more tokens; sizes are the released ones either way.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from benchmarks.loader_batches import (
    LENGTH,
    Batch,
    ByTheWorld,
    ByTransformers,
    Collate,
    collate_bare,
    compare,
    one_sample,
    processor_of_real_size,
)
from benchmarks.loader_rivals import READERS, WRITERS
from benchmarks.machine import head, median, row, spread
from benchmarks.rivals import WHY_NOT, environment, version_in
from theworld.data.batches.collate import Collator
from theworld.data.batches.loader import PassLoader
from theworld.data.batches.order import Shuffle
from theworld.data.batches.passes import PassDataset
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.batches.sources import Source
from theworld.model import TheWorldProcessor
from theworld.synthetic import generate
from theworld.train.data import LONGEST_TMPDIR, SampleTransform

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "webdataset": ("WebDataset", "webdataset"),
    "litdata": ("LitData", "litdata"),
    "datasets": ("HF datasets", "datasets"),
    "energon": ("Energon", "megatron-energon"),
}
COMPARED = 8
"""Samples whose tensors are compared."""


class Contender(NamedTuple):
    """A row: how samples are read, and what is made of them."""

    name: str
    reads: str
    makes: str

    @property
    def rival(self) -> bool:
        """Whether it needs what the project does not install."""
        return self.reads in WRITERS


STOCK = {"streaming": "stock StreamingDataset", **{key: name for key, (name, _) in PACKAGES.items()}}
CONTENDERS = [
    Contender("bare limit", "memory", "bare"),
    Contender("TheWorld", "theworld", "theworld"),
    Contender("the old way: parsed JSON, loose files, slow processor", "loose", "slow"),
    *[Contender(f"{name}, fast processor", reads, "fast") for reads, name in STOCK.items()],
    *[Contender(f"{name}, TheWorld's transform", reads, "theworld") for reads, name in STOCK.items()],
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gemma", default="builtin:tiny", help="folder with the released processor's files")
    parser.add_argument("--folder", type=Path, help="where to write the samples; default: $TMPDIR")
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--contenders", type=int, nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contenders:
        measure_all(given)
    else:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            given.folder = Path(folder)
            if len(os.fsencode(folder)) > LONGEST_TMPDIR:
                sys.exit(f"{folder}: longer than {LONGEST_TMPDIR} bytes, so that no batch would arrive; set TMPDIR")
            compete(given)
    return 0


# ---- one contender, in a process of its own


def measure_all(given: argparse.Namespace) -> None:
    """Measure contenders, each in a child of this process, which has all that they share."""
    torch.set_num_threads(1)
    processor = processor_of_real_size(given.gemma)
    forked = multiprocessing.get_context("fork")
    for number in given.contenders:
        child = forked.Process(target=measure, args=(given, number, processor))
        child.start()
        child.join()


def measure(given: argparse.Namespace, number: int, processor: TheWorldProcessor) -> None:
    """Write a contender's figures into the folder, and the tensors of the first samples."""
    contender = CONTENDERS[number]
    try:
        if contender.rival and not (given.folder / contender.reads).exists():
            WRITERS[contender.reads](given.folder)
        figures = figures_of(given, contender, processor)
    except Exception as error:  # whatever is the matter with a rival stands in its row
        traceback.print_exc()
        figures = f"{type(error).__name__}: {error}".splitlines()[0].replace("|", "/")
    (given.folder / f"{number}.json").write_text(json.dumps(figures))


def figures_of(given: argparse.Namespace, contender: Contender, processor: TheWorldProcessor) -> dict[str, list[float]]:
    """Figures of each round."""
    wanted = set(json.loads((given.folder / "compared.json").read_text()))
    collate = {
        "bare": lambda: collate_bare,
        "theworld": lambda: ByTheWorld(processor),
        "slow": lambda: ByTransformers(processor, slow=True),
        "fast": lambda: ByTransformers(processor, slow=False),
    }[contender.makes]()
    kept: dict[str, dict[str, torch.Tensor]] = {}
    rounds = []
    with open_loader(given, contender, processor, collate) as loader:
        for _ in range(given.rounds):
            rounds.append(one_pass(loader, given, wanted, kept))
    torch.save(kept, given.folder / f"{CONTENDERS.index(contender)}.pt")
    return {key: [one[key] for one in rounds] for key in rounds[0]}


def open_loader(
    given: argparse.Namespace, contender: Contender, processor: TheWorldProcessor, collate: Collate
) -> AbstractContextManager[Iterable[Batch]]:
    if contender.reads == "theworld":
        return read_theworld(given.folder, given.batch, processor)
    return READERS[contender.reads](given.folder, given.batch, collate)


@contextmanager
def read_theworld(folder: Path, batch: int, processor: TheWorldProcessor) -> Iterator[Iterable[Batch]]:
    transform = SampleTransform(SampleEncoder(processor, LENGTH), draw_bboxes=True)
    dataset = PassDataset(Source(None, str(folder / "mds")), Shuffle(False, 17, 0, 1), batch, transform)
    yield PassLoader(dataset, batch_size=batch, collate_fn=Collator(processor), num_workers=1)
    dataset.close()


def one_pass(
    loader: Iterable[Batch], given: argparse.Namespace, wanted: set[str], kept: dict[str, dict[str, torch.Tensor]]
) -> dict[str, float]:
    """Read all samples once.

    Args:
        loader: gives batches.
        given: how many samples, of which size of batch.
        wanted: ids of the samples whose tensors are kept.
        kept: id to tensors, where they are put.
    """
    batches = iter(loader)
    keep(next(batches), wanted, kept)
    workers = [child for child in psutil.Process().children(recursive=True) if child.is_running()]
    before, began = Spent.of(workers), time.perf_counter()
    count = given.samples // given.batch - 1
    last = list(islice(batches, count))[-1]
    seconds, after = time.perf_counter() - began, Spent.of(workers)
    own = max(worker.memory_full_info().uss for worker in workers)
    keep(last, wanted, kept)
    samples = count * given.batch
    for batch in batches:
        keep(batch, wanted, kept)
    return {
        "cpu": (after.cpu - before.cpu) / samples,
        "wall": seconds / samples,
        "pipe": (after.written - before.written) / count,
        "shared": in_shared_memory(last),
        "memory": own,
    }


def keep(batch: Batch, wanted: set[str], kept: dict[str, dict[str, torch.Tensor]]) -> None:
    for number, name in enumerate(batch["sample_ids"]):
        if name in wanted:
            kept[name] = one_sample(batch, number)


class Spent(NamedTuple):
    """What this process and its workers have used so far."""

    cpu: float
    """Seconds of all."""
    written: int
    """Bytes that the workers have written, into pipes and files."""

    @classmethod
    def of(cls, workers: list[psutil.Process]) -> Spent:
        times = [time.process_time(), *(sum(worker.cpu_times()[:2]) for worker in workers)]
        return cls(sum(times), sum(worker.io_counters().write_chars for worker in workers))


def in_shared_memory(batch: Batch) -> int:
    """Bytes of the tensors of a batch, which a worker hands over in shared memory."""
    tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values())


# ---- all contenders


def compete(given: argparse.Namespace) -> None:
    write_samples(given)
    python, fault = (None, WHY_NOT) if given.no_rivals else environment("loader")
    for rival, interpreter in ((False, sys.executable), (True, python)):
        chosen = [str(number) for number, contender in enumerate(CONTENDERS) if contender.rival == rival]
        if interpreter:
            print(call(given, interpreter, ["--contenders", *chosen]).stderr, file=sys.stderr)
    found = {
        number: fault if contender.rival and python is None else figures_in(given.folder, number)
        for number, contender in enumerate(CONTENDERS)
    }
    print_table(given, python, found)


def figures_in(folder: Path, number: int) -> dict[str, list[float]] | str:
    """A contender's figures, or what it failed with."""
    written = folder / f"{number}.json"
    return json.loads(written.read_text()) if written.is_file() else "its process has ended"


def write_samples(given: argparse.Namespace) -> None:
    """The sample as files and as the converter's shards."""
    raw = given.folder / "raw"
    generate(raw, given.samples)
    entries = json.loads((raw / "openspatial.json").read_bytes())
    (given.folder / "compared.json").write_text(json.dumps([entry["filename"] for entry in entries[:COMPARED]]))
    config = {
        "run_name": "benchmark",
        "global_train_batch_size": 1,
        "model": {"gemma": "builtin:tiny", "cosmos": "builtin:tiny"},
        "convert": {"json": f"{raw}/openspatial.json", "images": f"{raw}/images", "out": f"{given.folder}/mds"},
    }
    written = given.folder / "convert.yaml"
    written.write_text(json.dumps(config))
    subprocess.run([sys.executable, str(ROOT / "convert" / "to_mds.py"), str(written)], check=True, capture_output=True)


def call(given: argparse.Namespace, python: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """This script in an interpreter, with one thread a library."""
    sizes = ["--samples", str(given.samples), "--batch", str(given.batch), "--rounds", str(given.rounds)]
    command = [python, "-m", "benchmarks.loader", *arguments, *sizes, "--folder", str(given.folder)]
    quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_OFFLINE": "1"}
    environment = {**os.environ, **quiet, "PYTHONPATH": str(ROOT), "TMPDIR": str(given.folder)}
    return subprocess.run(
        [*command, "--gemma", given.gemma], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def print_table(given: argparse.Namespace, python: str | None, found: dict[int, dict[str, list[float]] | str]) -> None:
    own = next(number for number, contender in enumerate(CONTENDERS) if contender.name == "TheWorld")
    ours = found[own]
    assert isinstance(ours, dict), ours
    expected = torch.load(given.folder / f"{own}.pt")
    print(
        f"{given.samples} samples in batches of {given.batch}, one worker, median of {given.rounds} rounds; tokenizer: "
        f"{'the tiny one' if given.gemma == 'builtin:tiny' else 'the released one'}\n"
    )
    columns = ["CPU ms a sample", "samples/s a core", "TheWorld is", "spread", "MB a batch in shared memory"]
    print(head("", *columns, "kB a batch by pipe", "MB a worker's own", "ids, labels", "grey levels apart"))
    for number, contender in enumerate(CONTENDERS):
        name = contender.name
        if contender.rival and python:
            title, package = PACKAGES[contender.reads]
            name = name.replace(title, f"{title} {version_in(python, package)}")
        figures = found[number]
        if isinstance(figures, str):
            print(row(name, f"not measured: {figures}", *[""] * 8))
            continue
        cost = median(figures["cpu"])
        times = [f"{1000 * cost:.1f}", f"{1 / cost:.0f}", f"{cost / median(ours['cpu']):.2f}x", spread(figures["cpu"])]
        sizes = [f"{median(figures['shared']) / 1e6:.1f}", f"{median(figures['pipe']) / 1e3:.1f}"]
        alike = ["none", "no boxes"]
        if contender.makes != "bare":
            alike = compare(torch.load(given.folder / f"{number}.pt"), expected)
        print(row(name, *times, *sizes, f"{median(figures['memory']) / 1e6:.0f}", *alike))


if __name__ == "__main__":
    sys.exit(main())
