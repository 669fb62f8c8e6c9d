"""Node-local cache of shards: Streaming's own Stream, made whole, shared and restartable.

Differences from the stock :class:`streaming.Stream`, each for a reason seen in use:

- The shard list is the snapshot's, not a cached ``index.json``, which would hide growth and permute differently on a
  node with an empty cache.
- A shard becomes visible only when it is complete and its hash is right; a wrong one is fetched again. The stock one
  validates after the final name exists, and keeps a corrupt file.
- Several jobs of a node may share the cache: a file lock per shard keeps them from writing the same file.
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
from streaming.base.world import World

from theworld.data.batches.snapshot import Snapshot
from theworld.errors import UserError

log = logging.getLogger(__name__)

FETCH_ATTEMPTS = 3
HASHES = ("xxh64", "sha1", "sha256", "md5")
"""Streaming's names of hashes, fastest first."""


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
    """This launch's own name for the cache folder: a link in ``<cache>/.launches`` that leads to the cache itself.

    Streaming refuses a local folder that any living or killed process has registered in shared memory ("Reused local
    directory"). With a name of its own each launch starts at once, beside running jobs and after ``kill -9``, while the
    shards stay shared. Links of processes that no longer live on this host are removed.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        folder = cache / ".launches"
        folder.mkdir(parents=True, exist_ok=True)
        remove_dead_links(folder)
        name = f"{socket.gethostname()}.{os.getpid()}.{os.urandom(4).hex()}"
        self.path = folder / name
        self.path.symlink_to("..", target_is_directory=True)

    def remove(self) -> None:
        """Remove the link; the shards stay."""
        self.path.unlink(missing_ok=True)


def remove_dead_links(folder: Path) -> None:
    """Remove the links of launches on this host whose process is gone."""
    for link in folder.iterdir():
        host, _, rest = link.name.rpartition(".")[0].rpartition(".")
        if host == socket.gethostname() and rest.isdigit() and not psutil.pid_exists(int(rest)):
            link.unlink(missing_ok=True)


class SnapshotStream(Stream):
    """The shards of a snapshot, fetched from ``remote`` into ``local`` as they are needed.

    Args:
        snapshot: which shards there are.
        remote: folder or URL to fetch from; None if ``local`` holds the data set itself.
        local: the cache, under this launch's name.
        split: sub-folder of both.
    """

    def __init__(self, snapshot: Snapshot, remote: str | None, local: str, split: str | None = None) -> None:
        super().__init__(remote=remote, local=local, split=split, download_retry=2, download_timeout=600)
        self.snapshot = snapshot

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
                return 0
            self._fetch(shard, final)
        return int(raw.bytes)

    def _fetch(self, shard: Reader, final: Path) -> None:
        raw, zipped = shard.file_pairs[0]
        known = (zipped or raw).hashes
        check = next((name for name in HASHES if name in known), None)
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


def cache_report(local: str) -> dict[str, Any]:
    """Files and bytes in the cache and bytes free beside it, for logs."""
    files = [path for path in Path(local).rglob("*.mds") if path.is_file()]
    return {
        "shards": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "free": shutil.disk_usage(local).free,
    }
