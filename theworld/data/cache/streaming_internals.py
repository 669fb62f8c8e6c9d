"""Everything this recipe takes from Streaming that Streaming does not promise, and the check that it is still there.

Streaming has no hooks for three things: which of its shared memory is a data set's own, giving that back before the
process ends, and putting a snapshot of shards in place of ``index.json``. The first two reach for private names, here
and nowhere else; the third overrides methods of ``Stream`` in :mod:`~theworld.data.cache.shard_cache`. A release that
renames one of them is found by :func:`check_streaming` at the start, not after hours in a worker.
"""

from __future__ import annotations

import atexit
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from streaming import Stream, StreamingDataset
from streaming.base.shared import SharedArray, SharedBarrier, SharedMemory, SharedScalar, prefix

from theworld.errors import UserError

ARGUMENTS: dict[tuple[type, str], tuple[str, ...]] = {
    (Stream, "__init__"): ("remote", "local", "split", "download_retry", "download_timeout", "keep_zip"),
    (Stream, "apply_default"): ("default",),
    (Stream, "get_shards"): ("world", "allow_unsafe_types"),
    (Stream, "get_index_size"): (),
    (Stream, "set_up_local"): ("shards", "cache_usage_per_shard"),
    (Stream, "prepare_shard"): ("shard",),
    (StreamingDataset, "__init__"): ("streams", "batch_size"),
}
"""Method of Streaming that is overridden or called -> its arguments that are relied on."""

ATTRIBUTES: dict[type, tuple[str, ...]] = {
    StreamingDataset: (
        "_shm_prefix_int",
        "_locals_shm",
        "_shared_barrier",
        "_next_epoch",
        "_cache_usage",
        "_shard_states",
        "_shard_access_times",
    ),
    SharedBarrier: ("_arr",),
    SharedArray: ("shm",),
    SharedScalar: ("arr",),
    SharedMemory: ("cleanup",),
}
"""Class of Streaming -> what it sets on itself or defines and is reached for here."""


def check_streaming() -> None:
    """Refuse a Streaming whose inner parts are not those that this recipe was written for.

    Raises:
        UserError: one line that names the release and every part that is missing.
    """
    missing = []
    for (owner, name), arguments in ARGUMENTS.items():
        method = f"{owner.__name__}.{name}"
        if hasattr(owner, name):
            known = inspect.signature(getattr(owner, name)).parameters
            missing += [f"{method}({argument}=)" for argument in arguments if argument not in known]
        else:
            missing.append(method)
    missing += [
        f"{owner.__name__}.{name}"
        for owner, names in ATTRIBUTES.items()
        for name in names
        if not hasattr(owner, name) and name not in names_in(owner.__init__)
    ]
    if not hasattr(prefix, "SharedMemory"):
        missing.append("streaming.base.shared.prefix.SharedMemory")
    if missing:
        raise UserError(
            f"mosaicml-streaming {version('mosaicml-streaming')} is not one that this recipe can use: it lacks "
            f"{', '.join(missing)}; install a release that pyproject.toml allows"
        )


def names_in(function: Callable[..., Any]) -> tuple[str, ...]:
    """The attributes that a function's code names."""
    return inspect.unwrap(function).__code__.co_names


def segments_number(shards: StreamingDataset) -> int:
    """The number with which the names of the data set's segments begin; Streaming exposes it nowhere else."""
    return shards._shm_prefix_int


@contextmanager
def attachments() -> Iterator[list[SharedMemory]]:
    """The segments that Streaming attaches to while this is open, its own and those that it only looks into.

    To find the first free number it attaches to the segments of every data set on the node and lets go of none
    before the process ends: a few dozen open files for each opening beside other jobs. It has no hook for them, so the
    name that its search uses is replaced while the data set is opened.
    """
    found: list[SharedMemory] = []

    class Noted(SharedMemory):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            found.append(self)

    prefix.SharedMemory = Noted  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield found
    finally:
        prefix.SharedMemory = SharedMemory  # pyright: ignore[reportPrivateImportUsage]


def open_shards(**settings: Any) -> StreamingDataset:
    """A ``StreamingDataset`` that holds on to its own segments only."""
    with attachments() as attached:
        shards = StreamingDataset(**settings)
    for memory in attached:
        if memory is not shards._locals_shm:
            let_go(memory)
    return shards


def let_go(memory: SharedMemory) -> None:
    """Close a segment, and remove it if this process made it. Streaming would do so once more at the end of the
    process, by name, and the name may be another job's by then."""
    memory.cleanup()
    atexit.unregister(memory.cleanup)


def release_segments(shards: StreamingDataset) -> None:
    """Let go of the segments of a data set that is no longer used.

    Streaming gives them back only when the process ends, and a run that takes up growth again and again would fill its
    table of open files.
    """
    for memory in (
        shards._locals_shm,
        shards._shared_barrier._arr.shm,
        shards._next_epoch.arr.shm,
        shards._cache_usage.arr.shm,
        shards._shard_states.shm,
        shards._shard_access_times.shm,
    ):
        let_go(memory)
