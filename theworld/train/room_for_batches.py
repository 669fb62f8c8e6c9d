"""Batches on their way from the loader's workers to the rank lie in /dev/shm: whether it holds them."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from composer.utils import dist

from theworld.data.batches.loader import PassLoader
from theworld.disk_space import in_megabytes
from theworld.errors import UserError
from theworld.ranks import raise_on_all_ranks
from theworld.train.data import TrainData

SHARED = Path("/dev/shm")
REMEDY = (
    "give the node or the container more (docker run --shm-size), or lower train_loader.num_workers or "
    "train_loader.prefetch_factor; num_workers=0 needs none"
)


def bytes_ahead(data: TrainData) -> int:
    """What the rank's workers keep ready, pictures and latents alone: tokens are a hundredth of it."""
    loader = data.spec.dataloader
    assert isinstance(loader, PassLoader)
    if not loader.num_workers:
        return 0
    assert loader.batch_size is not None
    return bytes_kept_ready(loader.num_workers, loader.prefetch_factor or 1, loader.batch_size, data.picture_bytes)


def bytes_kept_ready(workers: int, prefetch: int, batch: int, picture_bytes: int) -> int:
    """What a rank's workers keep ready at most: each of them some batches of the rank's samples."""
    return workers * prefetch * batch * picture_bytes


def check_room_for_batches(loaders: Sequence[TrainData]) -> None:
    """Refuse, on all ranks, if some node's shared memory cannot hold what its ranks' workers are to keep ready.

    A worker that finds it full is killed by a bus error, at whatever step the workers have run that far ahead.

    Args:
        loaders: all loaders of this rank, which are alive side by side.
    """
    fault = None
    if dist.get_local_rank() == 0 and SHARED.is_dir():
        needed = dist.get_local_world_size() * sum(map(bytes_ahead, loaders))
        free = shutil.disk_usage(SHARED).free
        if needed > free:
            fault = (
                f"{SHARED}: {in_megabytes(free)} are free, but the batches that the loaders' workers keep ready take "
                f"{in_megabytes(needed)} on a node; {REMEDY}"
            )
    raise_on_all_ranks(fault)


@contextmanager
def full_shared_memory_as_one_line() -> Iterator[None]:
    """Turn the death of a worker that found no shared memory left, since something else took it, into one line.

    Raises:
        UserError: instead of torch's RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        texts = [str(one) for one in (error, error.__cause__, error.__context__)]
        if not any("shared memory" in text for text in texts):
            raise
        if any(os.strerror(errno.EMFILE) in text for text in texts):
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            raise UserError(
                f"a worker of the loader may open no more files, and each tensor of a batch is one: raise the limit "
                f"(ulimit -n, {limit:,} now) in the job script"
            ) from error
        free = in_megabytes(shutil.disk_usage(SHARED).free)
        raise UserError(
            f"{SHARED} was full ({free} are free now) and a worker of the loader died of it; {REMEDY}"
        ) from error
