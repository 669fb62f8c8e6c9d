"""Node-local cache of shards: Streaming's own Stream, made whole, shared and restartable.

Differences from the stock :class:`streaming.Stream`, each for a reason seen in use:

- The shard list is the snapshot's, not a cached ``index.json``, which would hide growth and permute differently on a
  node with an empty cache.
- A shard becomes visible only when it is complete and its hash is right; a wrong one is fetched again. The stock one
  validates after the final name exists, and keeps a corrupt file.
- Several jobs of a node may share the cache: a file lock per shard keeps them from writing the same file, and a
  process that fails to fetch a shard leaves nothing behind for which others would wait for ever.
- A limit on the cache's size holds for all jobs together, and never touches a data set that is read in place.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from filelock import FileLock
from numpy.typing import NDArray
from streaming import Stream
from streaming.base.format import reader_from_json
from streaming.base.format.base.reader import Reader
from streaming.base.hashing import is_hash
from streaming.base.world import World

from theworld.data.batches.snapshot import Snapshot
from theworld.errors import UserError

log = logging.getLogger(__name__)

FETCH_ATTEMPTS = 3


def default_cache_folder(remote: str) -> Path:
    """A folder under ``$TMPDIR`` that follows from the remote alone, so that ranks and later runs share it.

    Raises:
        UserError: the folder for temporary files cannot be written.
    """
    where = remote if "://" in remote else os.path.abspath(remote)
    name = f"theworld-cache-{hashlib.sha256(where.encode()).hexdigest()[:16]}"
    folder = Path(os.environ.get("TMPDIR") or tempfile.gettempdir()) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"train_loader.dataset.local: cannot create {folder} ({error.strerror}); "
            "set TMPDIR to a writable folder on this node, or the key itself"
        ) from error
    return folder


class LaunchFolder:
    """This launch's own names for the cache folder: links in ``<cache>/.launches/<launch>`` that lead to the cache.

    Streaming refuses a local folder that any living or killed process has registered in shared memory ("Reused local
    directory"). With names of its own each launch starts at once, beside running jobs and after ``kill -9``, and may
    open a grown data set again, while the shards stay shared. What processes on this host that no longer live have
    left is removed.
    """

    def __init__(self, cache: Path) -> None:
        launches = cache / ".launches"
        launches.mkdir(parents=True, exist_ok=True)
        for old in launches.iterdir():
            host, _, process = old.name.rpartition(".")[0].rpartition(".")
            if host == socket.gethostname() and process.isdigit() and not psutil.pid_exists(int(process)):
                shutil.rmtree(old, ignore_errors=True)
        self.path = launches / f"{socket.gethostname()}.{os.getpid()}.{os.urandom(4).hex()}"
        self.path.mkdir()

    def remove(self) -> None:
        """Remove the names; the shards stay."""
        shutil.rmtree(self.path, ignore_errors=True)


def new_name(launch: str, number: int, make: bool) -> str:
    """The launch's ``number``-th name for the cache; the node's first rank makes it, the others only know it."""
    name = Path(launch) / str(number)
    if make:
        name.symlink_to(Path("..", ".."), target_is_directory=True)
    return str(name)


class SnapshotStream(Stream):
    """The shards of a snapshot, fetched from ``remote`` into ``local`` as they are needed.

    Args:
        snapshot: which shards there are.
        remote: folder or URL to fetch from; None if ``local`` holds the data set itself.
        local: the cache, under this launch's name.
        split: sub-folder of both.
        cache_limit: bytes of shards to keep; the least recently used go first.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        remote: str | None,
        local: str,
        split: str | None = None,
        cache_limit: int | None = None,
    ) -> None:
        super().__init__(remote=remote, local=local, split=split, download_retry=2, download_timeout=600)
        self.snapshot = snapshot
        self.cache_limit = cache_limit

    def get_shards(self, world: World, allow_unsafe_types: bool) -> list[Reader]:
        """The snapshot's shards; nothing is downloaded."""
        readers = [reader_from_json(self.local, self.split, dict(info)) for info in self.snapshot.shards]
        for reader in readers:
            reader.validate(allow_unsafe_types)
        return readers

    def get_index_size(self) -> int:
        """The index is not kept in the cache."""
        return 0

    def set_up_local(self, shards: list[Reader], cache_usage_per_shard: NDArray[np.int64]) -> None:
        """Find out which shards the cache has; one of the wrong size is dropped and fetched again."""
        if self.remote is not None:
            for shard in shards:
                raw, _zipped = shard.file_pairs[0]
                path = Path(self.local, self.split, raw.basename)
                if path.is_file() and path.stat().st_size != raw.bytes:
                    log.warning("%s: has the wrong size, fetched again", path)
                    path.unlink(missing_ok=True)
        super().set_up_local(shards, cache_usage_per_shard)

    def prepare_shard(self, shard: Reader) -> int:
        """Fetch a shard if the cache does not have it, complete and with the right hash before it is visible.

        Returns:
            Bytes that the cache grew by.

        Raises:
            UserError: it could not be fetched whole.
        """
        raw, zipped = shard.file_pairs[0]
        final = Path(self.local, self.split, raw.basename)
        if self.remote is None:
            if final.is_file():
                return 0
            if zipped is not None and Path(self.local, self.split, zipped.basename).is_file():
                return super().prepare_shard(shard)
            raise UserError(f"{final}: the shard is missing; run convert/to_mds.py or convert/verify.py")
        locks = Path(self.local, ".locks")
        locks.mkdir(exist_ok=True)
        with FileLock(locks / f"{raw.basename.replace('/', '.')}.lock"):
            if final.is_file() and final.stat().st_size == raw.bytes:
                os.utime(final)
                return 0
            self._fetch(shard, final)
        if self.cache_limit is not None:
            evict(Path(self.local), self.cache_limit, final)
        return int(raw.bytes)

    def _fetch(self, shard: Reader, final: Path) -> None:
        raw, zipped = shard.file_pairs[0]
        known = (zipped or raw).hashes
        check = next((name for name in known if is_hash(name)), None)
        staging_root = Path(self.local, ".staging")
        staging_root.mkdir(exist_ok=True)
        faults: list[str] = []
        for _attempt in range(FETCH_ATTEMPTS):
            with tempfile.TemporaryDirectory(dir=staging_root) as staging:
                stream = Stream(
                    remote=self.remote,
                    local=staging,
                    split=self.split or None,
                    download_retry=2,
                    download_timeout=self.download_timeout,
                    keep_zip=False,
                )
                # What Streaming fills in for streams that are members of a dataset.
                stream.apply_default({"split": None, "validate_hash": check})
                staged = Path(staging, self.split, raw.basename)
                try:
                    stream.prepare_shard(shard)
                    if staged.stat().st_size != raw.bytes:
                        raise ValueError(f"{staged.stat().st_size} bytes instead of {raw.bytes}")
                except (OSError, ValueError, RuntimeError) as error:
                    faults.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
                    if isinstance(error, OSError) and error.errno == 28:
                        break
                    continue
                final.parent.mkdir(parents=True, exist_ok=True)
                os.replace(staged, final)
                return
        free = shutil.disk_usage(self.local).free
        raise UserError(
            f"{self.remote}/{raw.basename}: cannot be fetched whole into {final.parent} ({faults[-1]}; "
            f"{free / 1e9:.1f} GB free there); run convert/verify.py on the data set, or set "
            "train_loader.dataset.cache_limit if the disk is too small"
        )


def evict(cache: Path, limit: int, newest: Path) -> None:
    """Remove shards, the least recently asked for first, until the cache holds at most ``limit`` bytes."""
    with FileLock(cache / ".locks" / "evict.lock"):
        shards = [(path.stat(), path) for path in cache.glob("**/*.mds") if ".staging" not in path.parts]
        excess = sum(status.st_size for status, _ in shards) - limit
        for status, path in sorted(shards, key=lambda item: item[0].st_mtime_ns):
            if excess <= 0:
                break
            if path != newest:
                path.unlink(missing_ok=True)
                excess -= status.st_size


def cache_report(local: str) -> dict[str, Any]:
    """Files and bytes in the cache and bytes free beside it, for logs."""
    files = [path for path in Path(local).rglob("*.mds") if path.is_file()]
    return {
        "shards": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "free": shutil.disk_usage(local).free,
    }
