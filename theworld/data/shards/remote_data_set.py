"""A data set that lives in an object store: written in a local folder, moved up shard by shard, index last.

Streaming's own uploaders and downloaders do the transfers, so every store that it writes to works,
with its variables for credentials and endpoints. Importing them costs torch and 600 MB, which is
why nothing else in the converter does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from theworld.data.shards.dataset import IDS, MANIFEST, REJECTED, DataSet
from theworld.data.shards.mds import INDEX, stored_info
from theworld.data.shards.shard_plan import ShardJob
from theworld.data.shards.write_shard import ShardWriter
from theworld.errors import NotNow, UserError
from theworld.files import make_private, own_temporary, read_json, write_bytes, write_json

SCHEMES = ("s3", "gs", "oci", "hf", "azure", "azure-dl", "dbfs", "alipan")
PUSHED = ".pushed.json"
ATTEMPTS = 4
READ_ATTEMPTS = 3
READ_TIMEOUT = 20.0
"""Seconds that a store may be silent when it is asked for a small file."""
UPLOADS = 4
UPLOADS_WAITING = 8
NOT_FOUND = ("404", "not found", "nosuchkey", "no such", "does not exist")
REFUSED = (
    "401",
    "403",
    "unauthorized",
    "forbidden",
    "access denied",
    "accessdenied",
    "invalidaccesskeyid",
    "credentials",
)

logger = logging.getLogger(__name__)


def staging_folder(url: str) -> Path:
    """Where a remote data set is written before it is moved: the same for every run on this machine."""
    digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:12]
    return own_temporary(f"theworld-convert-{digest}")


class RemoteDataSet:
    """The remote side of a data set.

    Args:
        url: of the data set's root.
        local: the :class:`DataSet` in the staging folder. Its generations keep their small files
            (index, ids); their shards are only in the store.
    """

    def __init__(self, url: str, local: DataSet) -> None:
        self.url, self.local = url.rstrip("/"), local

    @property
    def _pushed(self) -> Path:
        return self.local.root / PUSHED

    def pull(self) -> None:
        """Bring the small files of the remote generations here, so that a new machine can go on.

        Raises:
            UserError: the store cannot be reached, or lost what this machine had put there; the staging folder is
                another user's.
        """
        make_private(self.local.root)
        manifest = self._download_json(MANIFEST)
        known = read_json(self._pushed)
        if manifest is None:
            if known is not None and known["generations"]:
                raise UserError(
                    f"convert.out: {self.url}: {MANIFEST} is gone, but this machine has put one there; "
                    f"if that was removed on purpose, remove {self.local.root} too"
                )
            return
        for generation in manifest["generations"]:
            folder = self.local.root / generation["name"]
            if (folder / INDEX).is_file() and hash_file(folder / INDEX) == generation["fingerprint"]:
                continue
            folder.mkdir(exist_ok=True)
            for name in (IDS, INDEX):  # the index makes it a generation
                self._download(f"{generation['name']}/{name}", folder / name)
        if known != manifest:
            self._download(REJECTED, self.local.root / REJECTED, optional=True)
            for name, content in ((MANIFEST, manifest), (PUSHED, manifest)):
                write_bytes(self.local.root / name, json.dumps(content, indent=1).encode() + b"\n")

    def push(self) -> None:
        """Bring what is new of the small files up: generations first, then the index, the manifest last."""
        manifest = read_json(self.local.root / MANIFEST)
        pushed = read_json(self._pushed)
        if manifest is None or manifest == pushed:
            return
        before = {generation["name"] for generation in (pushed or {"generations": []})["generations"]}
        names = [
            f"{generation['name']}/{name}"
            for generation in manifest["generations"]
            if generation["name"] not in before
            for name in (IDS, INDEX)
        ]
        uploader = self._uploader(self.local.root, self.url, keep_local=True)
        optional = [REJECTED] if (self.local.root / REJECTED).is_file() else []
        for name in [*names, *optional, INDEX, MANIFEST]:
            self.upload(uploader, name)
        write_json(self._pushed, manifest)

    def shard_uploader(self, folder: Path, generation: str) -> Any:
        """Streaming's uploader for the shards in ``folder``; removes each file that it has put up."""
        return self._uploader(folder, f"{self.url}/{generation}", keep_local=False)

    def _uploader(self, folder: Path, url: str, keep_local: bool) -> Any:
        from streaming.base.storage.upload import CloudUploader

        try:
            return CloudUploader.get((str(folder), url), keep_local=keep_local, retry=ATTEMPTS, exist_ok=True)
        except Exception as error:  # each store has errors of its own
            raise self._failed("cannot be written to", error) from error

    def upload(self, uploader: Any, name: str) -> None:
        """Send one file, or raise the line to show."""
        try:
            uploader.upload_file(name)
        except Exception as error:  # each store has errors of its own
            raise self._failed(f"cannot take {name}", error) from error

    def _download(self, name: str, path: Path, optional: bool = False) -> bool:
        from streaming.base.storage.download import CloudDownloader

        temporary = path.with_name(f".{path.name}.download")
        temporary.unlink(missing_ok=True)
        try:
            CloudDownloader.direct_download(f"{self.url}/{name}", str(temporary))
        except Exception as error:  # each store has errors of its own
            if optional and is_not_found(error):
                return False
            raise self._failed(f"cannot give {name}", error) from error
        temporary.replace(path)
        return True

    def _download_json(self, name: str) -> Any | None:
        path = self.local.root / f".{name}.remote"
        if not self._download(name, path, optional=True):
            return None
        return read_json(path)

    def _failed(self, what: str, error: Exception) -> UserError:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return UserError(
            f"convert.out: {self.url} {what}: {lines[0]}; check address and credentials; finished shards are kept"
        )


def is_not_found(error: Exception) -> bool:
    """Whether the store answered that there is no such file, as opposed to not answering."""
    return isinstance(error, FileNotFoundError) or any(word in str(error).lower() for word in NOT_FOUND)


def is_refused(error: Exception) -> bool:
    """Whether the store has answered that this user may not, as opposed to not answering."""
    return any(word in str(error).lower() for word in REFUSED)


def read_file(folder: str, name: str) -> str | None:
    """The text of a small file in a local folder or behind a URL; None if it is not there.

    Raises:
        NotNow: folder or store does not answer.
        UserError: the store refuses.
    """
    if "://" not in folder:
        path = Path(folder) / name
        try:
            return path.read_text(encoding="utf-8") if path.is_file() else None
        except OSError as error:
            raise NotNow(f"{path}: cannot be read now ({error.strerror})") from error
    # Imported here: Streaming brings torch, which the converter's processes must not load.
    from streaming.base.storage.download import CloudDownloader
    from streaming.base.util import retry

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / name

        @retry(num_attempts=READ_ATTEMPTS)
        def download() -> None:
            try:
                CloudDownloader.direct_download(f"{folder}/{name}", str(path), READ_TIMEOUT)
            except Exception as error:  # each store has errors of its own
                if not is_not_found(error):
                    raise

        try:
            download()
        except Exception as error:
            fault = (str(error).splitlines() or [""])[0] or type(error).__name__
            kind = UserError if is_refused(error) else NotNow
            raise kind(f"{folder}/{name}: cannot be read ({fault}); check address and credentials") from error
        return path.read_text(encoding="utf-8") if path.is_file() else None


def hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def upload_finished(
    shards: Iterator[tuple[ShardJob, dict[str, Any]]],
    writer: ShardWriter,
    remotes: dict[str, RemoteDataSet],
    targets: dict[str, str],
) -> Iterator[tuple[ShardJob, dict[str, Any]]]:
    """Move each finished shard up while others are written; passes them on.

    A shard's fragment remembers that it is up, so that a later run does not send it again. Few are
    on their way at a time: writing waits for a slow store instead of filling the disk.

    Args:
        shards: jobs with their fragments, as they finish.
        remotes: part to its remote data set.
        targets: part to the name of the generation.
    """
    uploaders: dict[str, Any] = {}

    def upload(job: ShardJob, fragment: dict[str, Any]) -> None:
        name = stored_info(fragment["shard"])["basename"]
        remotes[job.part].upload(uploaders[job.part], name)
        write_json(writer.fragment_path(job), {**fragment, "uploaded": True}, sync=False)
        (writer.folder / job.part / name).unlink(missing_ok=True)

    with ThreadPoolExecutor(UPLOADS, "upload") as pool:
        waiting = []
        for job, fragment in shards:
            if fragment["shard"] and not fragment.get("uploaded"):
                if job.part not in uploaders:
                    uploaders[job.part] = remotes[job.part].shard_uploader(writer.folder / job.part, targets[job.part])
                waiting.append(pool.submit(upload, job, fragment))
            while len(waiting) > UPLOADS_WAITING:
                waiting.pop(0).result()
            yield job, fragment
        for future in waiting:
            future.result()
