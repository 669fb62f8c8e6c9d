"""Everything this recipe takes from Streaming that Streaming does not promise, and the check that it is still there.

Streaming has no hooks for four things: which of its shared memory is a data set's own, giving that back before the
process ends, where its lock files lie, and putting a snapshot of shards in place of ``index.json``. The first three
reach for private names, here and nowhere else; the fourth overrides methods of ``Stream`` in
:mod:`~theworld.data.cache.shard_cache`. A release that renames one of them is found by :func:`check_streaming` at the
start, not after hours in a worker.
"""

from __future__ import annotations

import atexit
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from streaming import Stream, StreamingDataset
from streaming.base import dataset
from streaming.base.shared import SharedArray, SharedBarrier, SharedMemory, SharedScalar, prefix

from theworld.errors import UserError
from theworld.files import make_private, own_temporary

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
    if not hasattr(dataset, "gettempdir"):
        missing.append("streaming.base.dataset.gettempdir")
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
            refuse_other_users(self)
            found.append(self)

    prefix.SharedMemory = Noted  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield found
    finally:
        prefix.SharedMemory = SharedMemory  # pyright: ignore[reportPrivateImportUsage]


def refuse_other_users(memory: SharedMemory) -> None:
    """Another user's segment is not read: Streaming parses what is in it, and then passes over its number.

    Raises:
        PermissionError: what Streaming expects of a segment that is not this user's.
    """
    segment = Path("/dev/shm") / memory.shm.name.lstrip("/")
    if segment.exists() and segment.stat().st_uid != os.geteuid():
        let_go(memory)
        raise PermissionError(f"{segment} is another user's")


def make_lock_folder() -> Path:
    """Where Streaming's lock files lie: one folder for all of this user's data sets in a ``$TMPDIR``.

    Raises:
        UserError: it is another's, or a link, or cannot be made.
    """
    folder = own_temporary("theworld-locks")
    try:
        make_private(folder)
    except OSError as error:
        raise UserError(
            f"cannot make {folder} for the locks of Streaming ({error.strerror}); set TMPDIR to a folder on this node "
            "that can be written"
        ) from error
    return folder


@contextmanager
def private_lock_files() -> Iterator[None]:
    """Streaming's lock files go to a folder of this user's own while a data set is opened; it keeps their place.

    It would put them right into ``$TMPDIR``, under names that every user of a machine can foresee: a link of another's
    there is followed or ends the run, and a file that is held locked stops it without a word.

    Raises:
        UserError: see :func:`make_lock_folder`.
    """
    folder = make_lock_folder()
    dataset.gettempdir = lambda: str(folder)  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield
    finally:
        dataset.gettempdir = gettempdir  # pyright: ignore[reportPrivateImportUsage]


def open_shards(**settings: Any) -> StreamingDataset:
    """A ``StreamingDataset`` that holds on to its own segments only."""
    with attachments() as attached, private_lock_files():
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
