"""The formats and loaders of :mod:`benchmarks.loader`: each written by its own writer, read by its own loader.

``write`` makes a format of raw samples; ``read`` gives, within a context, what iterates over batches made in one worker
process. Each loader gives samples in the order of its files, unshuffled, as its documentation has it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from benchmarks.loader_batches import Batch, Collate, Sample

FIELDS = ("id", "width", "height", "conversations", "bbox")
SHARD = 1 << 25
"""Bytes."""


class ListedSamples(Dataset):
    """Samples that are in memory already."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> Any:
        return self.samples[number]


class LooseFiles(ListedSamples):
    """The parsed JSON, and a picture's file a sample."""

    def __init__(self, raw: Path) -> None:
        super().__init__(json.loads((raw / "openspatial.json").read_bytes()))
        self.raw = raw

    def __getitem__(self, number: int) -> Sample:
        return load_entry(self.samples[number], self.raw)


def load_entry(entry: dict[str, Any], raw: Path) -> Sample:
    """The raw sample of an entry of the JSON. The picture is as large as it was annotated, if anything was."""
    height, width = entry["rle"][0]["size"] if entry["rle"] else (0, 0)
    image = (raw / "images" / f"{entry['filename']}.jpg").read_bytes()
    facts = {"width": width, "height": height, "conversations": entry["conversations"], "bbox": entry["bbox"]}
    return {"id": entry["filename"], "image": image, **facts}


def raw_samples(raw: Path) -> Iterator[Sample]:
    loose = LooseFiles(raw)
    return (loose[number] for number in range(len(loose)))


LONGEST = 120.0
"""Seconds that a batch may take."""


def by_torch(dataset: Any, batch: int, collate: Collate) -> Iterable[Batch]:
    # A batch that a worker cannot hand over, as with shared memory that is full, is dropped and would be waited for.
    return DataLoader(dataset, batch_size=batch, collate_fn=collate, num_workers=1, timeout=LONGEST)


# ---- in memory, loose files, stock Streaming


@contextmanager
def read_memory(folder: Path, batch: int, collate: Collate) -> Iterator[Iterable[Batch]]:
    yield by_torch(ListedSamples(list(raw_samples(folder / "raw"))), batch, collate)


@contextmanager
def read_loose(folder: Path, batch: int, collate: Collate) -> Iterator[Iterable[Batch]]:
    yield by_torch(LooseFiles(folder / "raw"), batch, collate)


@contextmanager
def read_streaming(folder: Path, batch: int, collate: Collate) -> Iterator[Iterable[Batch]]:
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(folder / "mds"), batch_size=batch, shuffle=False, num_canonical_nodes=1)
    yield by_torch(dataset, batch, collate)


# ---- WebDataset


def write_webdataset(folder: Path, name: str = "webdataset") -> None:
    from webdataset.writer import ShardWriter  # pyright: ignore[reportMissingImports] - in an environment of its own

    (folder / name).mkdir()
    with ShardWriter(f"{folder}/{name}/shard-%05d.tar", maxsize=SHARD, maxcount=1 << 30, verbose=0) as writer:
        for sample in raw_samples(folder / "raw"):
            text = {name: sample[name] for name in FIELDS}
            writer.write({"__key__": sample["id"], "jpg": sample["image"], "json": text})


def from_members(members: dict[str, Any]) -> Sample:
    """A sample of a tar's members, bytes or decoded."""
    text = members["json"]
    return {**(text if isinstance(text, dict) else json.loads(text)), "image": members["jpg"]}


@contextmanager
def read_webdataset(folder: Path, batch: int, collate: Collate) -> Iterator[Iterable[Batch]]:
    # In an environment of its own.
    from webdataset import WebDataset, WebLoader  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    shards = sorted(map(str, (folder / "webdataset").glob("*.tar")))
    dataset = WebDataset(shards, shardshuffle=False).map(from_members)
    dataset = dataset.batched(batch, collation_fn=collate)
    yield WebLoader(dataset, batch_size=None, num_workers=1)


# ---- LitData


def write_litdata(folder: Path) -> None:
    import litdata  # pyright: ignore[reportMissingImports] - in an environment of its own

    numbers = list(range(len(LooseFiles(folder / "raw"))))
    makes = LitSample(folder / "raw")
    litdata.optimize(makes, numbers, str(folder / "litdata"), chunk_bytes=SHARD, num_workers=1, verbose=False)


class LitSample:
    """A sample as LitData can store it: texts as JSON."""

    def __init__(self, raw: Path) -> None:
        self.raw = raw

    def __call__(self, number: int) -> dict[str, Any]:
        sample = LooseFiles(self.raw)[number]
        return {"text": json.dumps({name: sample[name] for name in FIELDS}), "image": sample["image"]}


class AfterJson:
    """A collate function for samples whose texts are JSON."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, samples: Sequence[dict[str, Any]]) -> Batch:
        return self.collate([{**json.loads(sample["text"]), "image": sample["image"]} for sample in samples])


@contextmanager
def read_litdata(folder: Path, batch: int, collate: Collate) -> Iterator[Iterable[Batch]]:
    import litdata  # pyright: ignore[reportMissingImports] - in an environment of its own

    dataset = litdata.StreamingDataset(str(folder / "litdata"), shuffle=False)
    yield litdata.StreamingDataLoader(dataset, batch_size=batch, num_workers=1, collate_fn=AfterJson(collate))


# ---- Hugging Face datasets


def write_datasets(folder: Path) -> None:
    import datasets  # pyright: ignore[reportMissingImports] - in an environment of its own

    made = datasets.Dataset.from_generator(
        raw_samples, gen_kwargs={"raw": folder / "raw"}, cache_dir=str(folder / "datasets-cache")
    )
    made.save_to_disk(str(folder / "datasets"))


@contextmanager
def read_datasets(folder: Path, batch: int, collate: Collate) -> Iterator[Iterable[Batch]]:
    import datasets  # pyright: ignore[reportMissingImports] - in an environment of its own

    yield by_torch(datasets.load_from_disk(str(folder / "datasets")), batch, collate)


# ---- Energon


def write_energon(folder: Path) -> None:
    """Energon reads WebDataset's tars, with an index of its own."""
    write_webdataset(folder, "energon")
    settings = ["--non-interactive", "--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset", "--no-progress"]
    energon = str(Path(sys.executable).with_name("energon"))
    subprocess.run([energon, "prepare", *settings, str(folder / "energon")], check=True, capture_output=True)


@contextmanager
def read_energon(folder: Path, batch: int, collate: Collate) -> Iterator[Iterable[Batch]]:
    from megatron import energon  # pyright: ignore[reportMissingImports] - in an environment of its own

    class Encoder(energon.TaskEncoder):
        """Samples as they are, batches by the contender's function."""

        decoder = None
        cookers = (energon.Cooker(energon.stateless(from_members)),)

        def batch(self, samples: list[Sample]) -> Batch:
            return collate(samples)

    config = energon.WorkerConfig(rank=0, world_size=1, num_workers=1)
    dataset = energon.get_train_dataset(
        str(folder / "energon"),
        batch_size=batch,
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
        task_encoder=Encoder(),
        worker_config=config,
        repeat=False,
    )
    yield energon.get_loader(dataset)


Write = Callable[[Path], None]
WRITERS: dict[str, Write] = {
    "webdataset": write_webdataset,
    "litdata": write_litdata,
    "datasets": write_datasets,
    "energon": write_energon,
}
READERS = {
    "memory": read_memory,
    "loose": read_loose,
    "streaming": read_streaming,
    "webdataset": read_webdataset,
    "litdata": read_litdata,
    "datasets": read_datasets,
    "energon": read_energon,
}
