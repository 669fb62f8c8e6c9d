"""Shared memory that is too small for the batches that workers keep ready: one line, not a bus error."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from tests.conftest import smoke_config
from theworld.config.schema import Config
from theworld.data.batches.worker_notes import WorkerNotes
from theworld.errors import RunFailed, UserError
from theworld.killed_workers import killed_workers_as_one_line
from theworld.model.build import load_processor
from theworld.train.data import TrainData, begin_worker, build_data
from theworld.train.room_for_batches import bytes_ahead, full_shared_memory_as_one_line
from theworld.train.run import train

IN_SMALL_SHARED_MEMORY = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
MOUNT = "mount -t tmpfs -o size=4m none /dev/shm"

DIES = """
import torch
from torch.utils.data import DataLoader
from theworld.data.batches.worker_notes import WorkerNotes
from theworld.errors import UserError
from theworld.killed_workers import killed_workers_as_one_line
from theworld.train.data import begin_worker
from theworld.train.room_for_batches import full_shared_memory_as_one_line

class Batches(torch.utils.data.Dataset):
    notes = WorkerNotes(1, str)
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return torch.ones(8 << 20, dtype=torch.uint8)

try:
    with full_shared_memory_as_one_line(), killed_workers_as_one_line():
        for batch in DataLoader(Batches(), batch_size=None, num_workers=1, worker_init_fn=begin_worker):
            pass
except UserError as error:
    print(error)
"""


def config_on(raw: Path, mds: Path, folder: Path, *overrides: str) -> Config:
    return smoke_config(
        raw,
        mds,
        f"save_folder={folder / 'run'}",
        f"train_loader.dataset.local={folder / 'cache'}",
        "global_train_batch_size=4",
        *overrides,
    )


def open_data(config: Config) -> TrainData:
    processor = load_processor(config.model)
    return build_data(config.train_loader, processor, config.global_train_batch_size, config.seed, True)


@pytest.mark.parametrize("loader", ["train_loader", "eval_loader"])
def test_more_ahead_than_shared_memory_holds_is_refused_before_a_model_is_loaded(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, loader: str
) -> None:
    held_out = [f"eval_loader.dataset.remote={mds_sample}", f"eval_loader.dataset.local={tmp_path / 'held out'}"]
    too_much = [f"{loader}.num_workers=2", f"{loader}.prefetch_factor=100000000", "max_duration=1ba"]
    config = config_on(raw_sample, mds_sample, tmp_path, *held_out, *too_much)
    with pytest.raises(UserError, match=r"^/dev/shm: .* MB are free, .*--shm-size.*train_loader\.num_workers") as error:
        train(config)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "pretrained").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_counted_are_the_pictures_of_all_batches_ahead(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, workers: int
) -> None:
    settings = [f"train_loader.num_workers={workers}", "train_loader.prefetch_factor=3"]
    data = open_data(config_on(raw_sample, mds_sample, tmp_path, *settings))
    batch = next(iter(data.spec.dataloader))
    data.close()
    pictures = batch["pixel_values"].nbytes + batch["world_pixel_values"].nbytes
    assert bytes_ahead(data) == workers * 3 * pictures
    everything = sum(value.nbytes for value in batch.values() if isinstance(value, torch.Tensor))
    assert everything > pictures


def test_a_worker_that_dies_of_full_shared_memory_is_one_line() -> None:
    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*IN_SMALL_SHARED_MEMORY, command], capture_output=True, text=True, timeout=300)

    if sys.platform != "linux" or run(MOUNT).returncode:
        pytest.skip("needs leave to mount a /dev/shm of its own (unshare)")
    found = run(f"{MOUNT} && {sys.executable} -c '{DIES}'")
    lines = found.stdout.splitlines()
    assert len(lines) == 1, found.stderr
    assert re.match(
        r"a loader worker was killed \(process \d+: .*(Bus error|code 28); /dev/shm is full: enlarge it", lines[0]
    )


class TooManyFiles(Dataset):
    """Batches that a worker makes when it may open no more files."""

    notes = WorkerNotes(1, str)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        if get_worker_info() is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        return torch.ones(1000)


def test_no_more_files_is_another_line_than_no_more_memory() -> None:
    """Found where a worker puts its samples together."""
    loader = DataLoader(TooManyFiles(), batch_size=4, num_workers=1, worker_init_fn=begin_worker, timeout=120)
    told = r"^a worker of the loader may open no more files.*ulimit -n"
    with pytest.raises(UserError, match=told), full_shared_memory_as_one_line():
        list(loader)


def test_a_worker_that_finds_it_out_when_it_hands_the_batch_over_ends(capfd: pytest.CaptureFixture[str]) -> None:
    loader = DataLoader(TooManyFiles(), batch_size=None, num_workers=1, worker_init_fn=begin_worker, timeout=120)
    with (
        pytest.raises(RunFailed, match=r"exited with code 24; it may open no more files"),
        killed_workers_as_one_line(),
    ):
        list(loader)
    assert "a loader worker cannot hand over a batch: " in (said := capfd.readouterr().err)
    assert "Too many open files" in said
