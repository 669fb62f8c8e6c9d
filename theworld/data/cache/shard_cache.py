"""Node-local cache of shards: Streaming's own Stream, made whole, shared and restartable.

Differences from the stock :class:`streaming.Stream`, each for a reason seen in use:

- The shard list is the snapshot's, not a cached ``index.json``, which would hide growth and permute differently on a
  node with an empty cache.
- A shard lies in a folder that its generation's fingerprint names, so that two data sets never share one, not even
  when another is written to the same remote, or both are given the same ``local``.
- A shard becomes visible only when it is complete and its hash is right; a wrong one is fetched again. The stock one
  validates after the final name exists, and keeps a corrupt file. A shard of an earlier attempt is hashed once more.
- Several jobs of a node may share the cache: a file lock per shard keeps them from writing the same file, and a
  process that fails to fetch a shard leaves nothing behind for which others would wait for ever.
- A limit on the cache's size holds for all jobs together, and never touches a data set that is read in place.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from streaming import Stream
from streaming.base.format import reader_from_json
from streaming.base.format.base.reader import FileInfo, Reader
from streaming.base.hashing import get_hash, is_hash
from streaming.base.world import World

from theworld.data.cache.attempt_folder import attempt_of
from theworld.data.cache.snapshot import Snapshot
from theworld.data.cache.space import make_room
from theworld.errors import DamagedShard, NotNow, UserError, first_line
from theworld.files import make_private, own_temporary
from theworld.patience import patiently

log = logging.getLogger(__name__)

FETCH_ATTEMPTS = 4
"""On a disk that is full."""
SILENT_AFTER = 60.0
"""Seconds after which a store that stays silent is asked again."""
NO_SPACE = 28


def default_cache_folder(*remotes: str) -> Path:
    """A folder under ``$TMPDIR`` whose name follows from the data alone, so that ranks and later runs share it; one for
    all runs that mix data sets, of which each may be in many mixtures."""
    name = "theworld-cache-mixed"
    if len(remotes) == 1:
        where = remotes[0] if "://" in remotes[0] else os.path.abspath(remotes[0])
        name = f"theworld-cache-{hashlib.sha256(where.encode()).hexdigest()[:16]}"
    if not os.environ.get("TMPDIR"):
        log.warning(
            "TMPDIR is not set, so shards are cached in %s; set it to the node's own disk", tempfile.gettempdir()
        )
    return own_temporary(name, os.environ.get("TMPDIR"))


def make_cache_folder(folder: Path, shared: bool) -> None:
    """Create the cache's folder.

    Args:
        folder: the cache.
        shared: the user has named it, so that it may be a group's; else nobody but the user may write to it.

    Raises:
        UserError: it cannot be created or written, or it is another user's.
    """
    try:
        if shared:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            make_private(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write the cache of shards {folder} ({error.strerror}); set TMPDIR to a writable folder on this "
            "node, or train_loader.dataset.local"
        ) from error


class SnapshotStream(Stream):
    """The shards of a snapshot, fetched from ``remote`` into ``local`` as they are needed.

    Args:
        snapshot: which shards there are.
        remote: folder or URL to fetch from; None if ``local`` holds the data set itself.
        local: the cache, under this attempt's name.
        split: sub-folder of both.
        cache_limit: bytes of shards to keep, the least recently used go first; None: what fits the free disk.
        patience: seconds to try again where a shard cannot be reached.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        remote: str | None,
        local: str,
        split: str | None = None,
        cache_limit: int | None = None,
        patience: float = 600.0,
    ) -> None:
        super().__init__(remote=remote, local=local, split=split, download_retry=1, download_timeout=SILENT_AFTER)
        self.snapshot = snapshot
        self.patience = patience
        self.cache_limit = cache_limit
        entries = snapshot.shards if remote is None else snapshot.cache_entries()
        self.entries = {
            str(entry["raw_data"]["basename"]): (entry, original)
            for entry, original in zip(entries, snapshot.shards, strict=True)
        }
        """By the name in ``local``: the index entry there, and the one in ``remote``."""

    def get_shards(self, world: World, allow_unsafe_types: bool) -> list[Reader]:
        """The snapshot's shards; nothing is downloaded."""
        readers = [reader_from_json(self.local, self.split, dict(entry)) for entry, _ in self.entries.values()]
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
            NotNow: it could not be fetched whole for as long as patience lasts; DamagedShard where the remote answers.
            UserError: the cache's disk is too small.
        """
        return patiently(lambda: self._prepare_now(shard), f"shard {shard.file_pairs[0][0].basename}", self.patience)

    def _prepare_now(self, shard: Reader) -> int:
        """One attempt. The lock is held during it only, so that all who wait for a shard wait side by side."""
        raw, zipped = shard.file_pairs[0]
        final = Path(self.local, self.split, raw.basename)
        if self.remote is None:
            return self._prepare_in_place(shard, final)
        locks = Path(self.local, ".locks")
        locks.mkdir(exist_ok=True)
        flat_name = Path(self.split, raw.basename).as_posix().replace("/", ".")
        checked = attempt_of(self.local) / "checked" / flat_name
        with FileLock(locks / f"{flat_name}.lock"):
            if self._have(final, raw, checked):
                os.utime(final)
                return 0
            make_room(Path(self.local), int(raw.bytes + (zipped.bytes if zipped else 0)), self.cache_limit)
            self._fetch(raw.basename, final)
            checked.parent.mkdir(exist_ok=True)
            checked.touch()
        return int(raw.bytes)

    def _prepare_in_place(self, shard: Reader, final: Path) -> int:
        """A data set that is read where it lies: nothing to fetch, at most to decompress."""
        raw, zipped = shard.file_pairs[0]
        if final.is_file():
            if final.stat().st_size != raw.bytes:
                raise DamagedShard.found(final, f"{final.stat().st_size} bytes instead of {raw.bytes}")
            return 0
        if zipped is not None and Path(self.local, self.split, zipped.basename).is_file():
            return super().prepare_shard(shard)
        raise NotNow(f"{final}: the shard is missing; run convert/to_mds.py or convert/verify.py")

    def _have(self, final: Path, raw: FileInfo, checked: Path) -> bool:
        """Whether the cache has the shard, as it should be; its hash is taken once an attempt."""
        if not (final.is_file() and final.stat().st_size == raw.bytes):
            return False
        if checked.exists():
            return True
        algorithm = usable_hash(raw)
        if algorithm is not None and get_hash(algorithm, final.read_bytes()) != raw.hashes[algorithm]:
            log.warning("%s: is damaged, fetched again", final)
            return False
        checked.parent.mkdir(exist_ok=True)
        checked.touch()
        return True

    def _fetch(self, name: str, final: Path) -> None:
        """Copy the shard to a place aside, check it, give it its name."""
        entry, original = self.entries[name]
        needed = sum(int(entry[key]["bytes"]) for key in ("raw_data", "zip_data") if entry.get(key))
        full = None
        for _attempt in range(FETCH_ATTEMPTS):
            # Room that was made may go to a shard that another process fetches at the same moment. On a disk that
            # has turned out to be so small, one fetches at a time.
            with FileLock(Path(self.local, ".locks", "full.lock")) if full else nullcontext():
                try:
                    if full:
                        make_room(Path(self.local), needed, self.cache_limit)
                    self._fetch_once(original, final)
                    return
                except DamagedShard:
                    raise
                except Exception as error:  # each store has errors of its own
                    full = error
                    if not (isinstance(error, OSError) and error.errno == NO_SPACE):
                        break
        where = (
            f"{self.remote}/{original['raw_data']['basename']}: cannot be fetched whole into {final.parent.resolve()}"
        )
        reason = first_line(full) if full is not None else ""
        if isinstance(full, OSError) and full.errno == NO_SPACE:
            free = shutil.disk_usage(self.local).free
            raise UserError(
                f"{where} ({reason}; {free / 1e9:.1f} GB free there); set TMPDIR or train_loader.dataset.local to a "
                "larger disk"
            )
        raise NotNow(f"{where} ({reason}); where that lasts, run convert/verify.py on the data set")

    def _fetch_once(self, original: dict[str, Any], final: Path) -> None:
        """One attempt; raises whatever the store, the disk or the check ran into."""
        staging_root = Path(self.local, ".staging")
        staging_root.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=staging_root) as staging:
            shard = reader_from_json(staging, self.split, dict(original))
            raw, zipped = shard.file_pairs[0]
            stream = Stream(
                remote=self.remote,
                local=staging,
                split=self.split or None,
                download_retry=1,
                download_timeout=self.download_timeout,
                keep_zip=False,
            )
            # What Streaming fills in for streams that are members of a dataset.
            stream.apply_default({"split": None, "validate_hash": usable_hash(zipped or raw)})
            staged = Path(staging, self.split, raw.basename)
            fetched = zipped or raw
            try:
                stream.prepare_shard(shard)
            except Exception:  # each store has errors of its own
                fault = difference(Path(staging, self.split, fetched.basename), fetched)
                if fault is not None:
                    raise DamagedShard.found(f"{self.remote}/{fetched.basename}", fault) from None
                raise
            if staged.stat().st_size != raw.bytes:
                raise DamagedShard.found(
                    f"{self.remote}/{fetched.basename}", f"{staged.stat().st_size} bytes instead of {raw.bytes}"
                )
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staged, final)


def difference(path: Path, expected: FileInfo) -> str | None:
    """How a file that was fetched is not what the index says; None if it is, or was not fetched at all."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    if len(content) != expected.bytes:
        return f"{len(content)} bytes instead of {expected.bytes}"
    algorithm = usable_hash(expected)
    if algorithm is None or get_hash(algorithm, content) == expected.hashes[algorithm]:
        return None
    return f"{algorithm} {get_hash(algorithm, content)} instead of {expected.hashes[algorithm]}"


def usable_hash(file: FileInfo) -> str | None:
    """An algorithm of which the index has a hash of the file and which Streaming can compute; None: there is none."""
    return next((name for name in file.hashes if is_hash(name)), None)
