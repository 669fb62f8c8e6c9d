"""How much of a disk the cache of shards may use, and which shards go when it is full."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from theworld.disk_space import in_megabytes
from theworld.errors import UserError

SMALLEST_IN_SHARDS = 4
"""The least number of shards that a cache must be able to hold at a time; Streaming asks for the same."""


def reserve(cache: Path) -> int:
    """Bytes that are left free for others if no limit was set: 2 GiB, on small disks 5 %."""
    return min(2 << 30, shutil.disk_usage(cache).total // 20)


def cached_shards(cache: Path) -> list[os.DirEntry[str]]:
    """The complete shards in the cache, of all data sets that it serves."""
    found: list[os.DirEntry[str]] = []
    folders = [str(cache)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    # Hidden ones hold names, locks and what is on its way.
                    if not entry.name.startswith("."):
                        folders.append(entry.path)
                elif entry.name.endswith(".mds"):
                    found.append(entry)
    return found


def cache_capacity(cache: Path, limit: int | None) -> int:
    """Bytes of shards that the cache can hold: the limit, or what it holds and the free disk beyond the reserve."""
    if limit is not None:
        return limit
    held = sum(size for _, size, _ in ages(cached_shards(cache)))
    return held + max(shutil.disk_usage(cache).free - reserve(cache), 0)


def check_capacity(cache: Path, limit: int | None, shard_sizes: Iterable[int]) -> int:
    """The cache's capacity in bytes.

    Raises:
        UserError: it cannot hold the few largest shards, so that training could not go on.
    """
    capacity = cache_capacity(cache, limit)
    sizes = sorted(shard_sizes, reverse=True)
    needed = sum(sizes[:SMALLEST_IN_SHARDS])
    if capacity < needed:
        remedy = (
            f"{cache} has {in_megabytes(capacity)} for it; set TMPDIR or train_loader.dataset.local to a larger disk"
            if limit is None
            else f"train_loader.dataset.cache_limit allows {in_megabytes(limit)}; raise it"
        )
        raise UserError(f"the cache of shards needs {in_megabytes(needed)} at the least, but {remedy}")
    return capacity


def make_room(cache: Path, needed: int, limit: int | None) -> None:
    """Remove the shards least recently asked for until ``needed`` more bytes fit.

    Args:
        cache: its folder.
        needed: bytes that are to be added.
        limit: bytes of shards that the cache may hold for all jobs together; None: what fits the free disk.
    """
    if limit is None and shutil.disk_usage(cache).free - reserve(cache) >= needed:
        return
    locks = cache / ".locks"
    locks.mkdir(exist_ok=True)
    with FileLock(locks / "evict.lock"):
        shards = ages(cached_shards(cache))
        if limit is None:
            excess = needed + reserve(cache) - shutil.disk_usage(cache).free
        else:
            excess = needed + sum(size for _, size, _ in shards) - limit
        for _, size, path in sorted(shards):
            if excess <= 0:
                break
            Path(path).unlink(missing_ok=True)
            excess -= size


def ages(shards: Iterable[os.DirEntry[str]]) -> list[tuple[int, int, str]]:
    """(time last asked for, size, path) of each; without those that another job has removed meanwhile."""
    found = []
    for shard in shards:
        try:
            status = shard.stat()
        except FileNotFoundError:
            continue
        found.append((status.st_mtime_ns, status.st_size, shard.path))
    return found
