"""Time to the first batch of a resumed run, early and late in a pass, beside other loaders.

    python -m benchmarks.resume [--samples 100000] [--folder DIR] [--workers 2] [--rounds 3]

The data set is tiny pictures, written with Streaming's MDSWriter and removed at the end (100,000 samples: 90 MB). All
loaders read the same samples in batches of 256 and do the same work for each: read it from its shard, decode the
picture. Each opens the data set, takes up its place and reads one batch:

- TheWorld's from a saved state.
- stock StreamingDataset from its own state.
- map-style, skips ahead: torch's own DataLoader over a shuffled sampler, which knows no place: it reads and drops every
  batch before the one it resumes at, as Composer does for such loaders.
- HF Trainer: what it calls, accelerate's ``skip_first_batches``. Of a map-style data set it skips indices and reads no
  sample; an iterable one it reads and drops.

Imports are not counted; files are in the page cache. The median of the rounds is shown. Which of these are right after
a change of ranks, of workers or of the data is another matter: docs/exactly-once.md.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from streaming import LocalDataset, MDSWriter, StreamingDataset
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from benchmarks.machine import head, median, row, spread
from theworld.cli import forget_ranks
from theworld.data.batches.loader import PassLoader
from theworld.data.batches.order import Shuffle
from theworld.data.batches.passes import PassDataset
from theworld.data.batches.sample_encoder import EncodedSample
from theworld.data.batches.sources import Source

BATCH = 256
PLACES = (0.01, 0.99)
SIDE = 16
COLUMNS = {"id": "str", "image": "bytes", "width": "int32", "height": "int32", "conversations": "json", "bbox": "json"}
CONVERSATION = [{"from": "human", "value": "<image>\nHow wide is it?"}, {"from": "gpt", "value": "One metre."}]


def write_samples(folder: Path, samples: int) -> None:
    """A data set of tiny pictures, 2,000 to a shard."""
    generator = np.random.default_rng(1)
    pictures = []
    for _ in range(64):
        stream = io.BytesIO()
        Image.fromarray(generator.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(stream, "JPEG")
        pictures.append(stream.getvalue())
    with MDSWriter(out=str(folder), columns=COLUMNS, size_limit=2 << 20) as writer:
        for number in range(samples):
            picture = pictures[number % len(pictures)]
            facts = {"width": SIDE, "height": SIDE, "conversations": CONVERSATION, "bbox": []}
            writer.write({"id": f"{number:016x}", "image": picture, **facts})


def decode(sample: dict[str, Any], epoch: int = 0, copy: int = 0) -> EncodedSample:
    """What both loaders do with a sample."""
    with Image.open(io.BytesIO(sample["image"])) as image:
        pixels = torch.from_numpy(np.asarray(image.convert("RGB")).copy())
    return EncodedSample(sample["id"], [1, 2], [1, 2], {"pixel_values": pixels})


def collate(samples: list[EncodedSample]) -> list[str]:
    return [sample.id for sample in samples]


class MapStyle(Dataset):
    """The same samples by number."""

    def __init__(self, folder: Path) -> None:
        self.shards = LocalDataset(str(folder))

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, number: int) -> EncodedSample:
        return decode(self.shards[number])


def resume_theworld(folder: Path, position: int, workers: int) -> list[str]:
    """The batch after ``position`` samples, from a saved state."""
    dataset = PassDataset(Source(None, str(folder)), Shuffle(True, 17, 0, num_canonical_nodes=8), BATCH, decode)
    dataset.load_state_dict(dataset.state_dict(position))
    loader = PassLoader(dataset, batch_size=BATCH, num_workers=workers, collate_fn=collate)
    return next(iter(loader))


def resume_map_style(folder: Path, position: int, workers: int) -> list[str]:
    """The same of a loader that skips ahead."""
    order = torch.Generator().manual_seed(17)
    loader = DataLoader(
        MapStyle(folder), batch_size=BATCH, shuffle=True, num_workers=workers, collate_fn=collate, generator=order
    )
    for number, batch in enumerate(loader):
        if number == position // BATCH:
            return batch
    raise ValueError(f"the data set has fewer than {position} samples")


def resume_streaming(folder: Path, position: int, workers: int) -> list[str]:
    """The same of stock Streaming."""
    dataset = StreamingDataset(
        local=str(folder), batch_size=BATCH, shuffle=True, shuffle_seed=17, num_canonical_nodes=8
    )
    dataset.load_state_dict(dataset.state_dict(position, from_beginning=True))
    loader = DataLoader(dataset, batch_size=BATCH, num_workers=workers, collate_fn=decode_and_collate)
    return next(iter(loader))


def decode_and_collate(samples: list[dict[str, Any]]) -> list[str]:
    return collate([decode(sample) for sample in samples])


def resume_trainer(folder: Path, position: int, workers: int) -> list[str]:
    """What HF Trainer does with a map-style data set."""
    from accelerate import skip_first_batches

    order = torch.Generator().manual_seed(17)
    loader = DataLoader(
        MapStyle(folder), batch_size=BATCH, shuffle=True, num_workers=workers, collate_fn=collate, generator=order
    )
    return next(iter(skip_first_batches(loader, position // BATCH)))


class InOrder(IterableDataset):
    """The samples one after the other, whole batches of them to each worker in turn."""

    def __init__(self, folder: Path) -> None:
        self.samples = MapStyle(folder)

    def __iter__(self) -> Iterator[EncodedSample]:
        worker = get_worker_info()
        order = torch.randperm(len(self.samples), generator=torch.Generator().manual_seed(17)).tolist()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for start in range(number * BATCH, len(order), workers * BATCH):
            yield from (self.samples[index] for index in order[start : start + BATCH])


def resume_trainer_iterable(folder: Path, position: int, workers: int) -> list[str]:
    """What HF Trainer does with an iterable data set."""
    from accelerate import skip_first_batches

    loader = DataLoader(InOrder(folder), batch_size=BATCH, num_workers=workers, collate_fn=collate)
    return next(iter(skip_first_batches(loader, position // BATCH)))


def seconds(resume: Callable[[Path, int, int], list[str]], folder: Path, position: int, workers: int) -> float:
    begin = time.perf_counter()
    batch = resume(folder, position, workers)
    elapsed = time.perf_counter() - begin
    assert len(set(batch)) == BATCH
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where to write the samples; default: $TMPDIR")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    forget_ranks()  # accelerate would wait for those that a launcher has named in this shell
    contenders = {
        "TheWorld": resume_theworld,
        "stock StreamingDataset": resume_streaming,
        "map-style, skips ahead": resume_map_style,
        "HF Trainer, map-style": resume_trainer,
        "HF Trainer, iterable": resume_trainer_iterable,
    }
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        folder = Path(scratch) / "mds"
        write_samples(folder, arguments.samples)
        times: dict[str, list[list[float]]] = {}
        for name, resume in contenders.items():
            for place in PLACES:
                whole = min(int(arguments.samples * place), arguments.samples - BATCH)
                position = whole // BATCH * BATCH
                runs = [seconds(resume, folder, position, arguments.workers) for _ in range(arguments.rounds)]
                times.setdefault(name, []).append(runs)
    sizes = f"{arguments.samples:,} samples, batches of {BATCH}, {arguments.workers} workers"
    print(f"{sizes}, median of {arguments.rounds}\n")
    print(head("seconds to the first batch", *(f"at {place:.0%} of a pass" for place in PLACES), "spread", "late is"))
    for name, (early, late) in times.items():
        shown = [f"{median(runs):.2f}" for runs in (early, late)]
        print(row(name, *shown, spread(late), f"{median(late) / median(early):.1f}x early"))


if __name__ == "__main__":
    main()
