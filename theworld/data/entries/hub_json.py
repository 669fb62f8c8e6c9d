"""One file of a data set on the Hugging Face Hub, by huggingface_hub's own client.

Newer releases of the client go on with a broken download within its process only, the next one starts over (seen in
2.4; huggingface_hub #4228: file locks are not to be trusted everywhere). Of 30 GB that is too much to lose, so the part
is kept here, under a name that follows from the file's hash, and the whole is compared with that hash.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from filelock import FileLock, Timeout

from theworld.errors import UserError
from theworld.files import check_private, make_private, own_temporary, read_json, write_json

SCHEME = "hf://"
URL = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<file>.+)")
SHA256 = re.compile(r"[0-9a-f]{64}")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger(__name__)


@dataclass
class HubFile:
    """A file ``hf://datasets/OWNER/NAME[@REVISION]/FILE``.

    Attributes:
        folder: where it is downloaded to; follows from the URL's repo, so later runs find it.
        shared: the user has named that folder, so that it may be a group's; else nobody but the user may write to it.
    """

    url: str
    repo: str
    revision: str | None
    name: str
    folder: Path
    shared: bool

    @classmethod
    def from_url(cls, url: str, cache: str | None) -> HubFile:
        """Parse the URL.

        Raises:
            UserError: it has another form.
        """
        match = URL.fullmatch(url)
        if not match:
            raise UserError(f"convert.json: {url}: expected hf://datasets/OWNER/NAME/FILE")
        own = hashlib.sha256(f"{match['repo']}@{match['revision']}".encode()).hexdigest()[:8]
        folder = Path(cache) if cache else own_temporary(f"theworld-json-{own}")
        return cls(url, match["repo"], match["revision"], match["file"], folder, shared=bool(cache))

    @property
    def path(self) -> Path:
        return self.folder / self.name

    @property
    def _note(self) -> Path:
        """Remembers what was downloaded, for a node that cannot reach the Hub."""
        return self.folder / f".{self.name.replace('/', '-')}.source.json"

    def identity(self) -> dict[str, Any]:
        """URL, etag and size as the Hub gives them now; costs one request, not the download.

        Raises:
            UserError: the Hub refuses, or is out of reach and nothing was downloaded before.
        """
        hub = import_hub()
        try:
            found = self._ask(hub)
        except Exception as error:  # requests, hub and OS errors, told apart below
            note = read_json(self._note)
            if note is not None and not is_refusal(error) and self._downloaded():
                logger.warning("the Hub is out of reach (%s): using %s as downloaded before", error, self.path)
                return note
            raise self._explain(error) from error
        if found.etag is None or found.size is None:
            raise UserError(f"convert.json: {self.url}: the Hub tells no size or hash of it; download it by hand")
        return {"url": self.url, "etag": found.etag, "bytes": found.size}

    def _ask(self, hub: Any) -> Any:
        """What the Hub says of the file: etag, size, and the address that has its content, good for a while only."""
        return hub.get_hf_file_metadata(
            hub.hf_hub_url(self.repo, self.name, repo_type="dataset", revision=self.revision)
        )

    def _downloaded(self) -> bool:
        if not self.shared:
            check_private(self.folder)
        note = read_json(self._note)
        return note is not None and note["url"] == self.url and self._has_size(note["bytes"])

    def copy_here(self) -> Path | None:
        """The file as it was downloaded before, without asking the Hub; None if it was not, or not whole."""
        return self.path if self._downloaded() else None

    def _has_size(self, size: int) -> bool:
        return self.path.is_file() and self.path.stat().st_size == size

    def fetch(self) -> Path:
        """The local file, downloaded if it is not there; a broken download goes on where it stopped.

        Raises:
            UserError: refused, broken off, damaged on the way, or no space; the line says what to do.
        """
        identity = self.identity()
        if self._downloaded() and read_json(self._note) == identity:
            return self.path
        hub = import_hub()
        try:
            if self.shared:
                self.folder.mkdir(parents=True, exist_ok=True)
            else:
                make_private(self.folder)
            self._check_space(identity)
            logger.info("downloading %s (%.1f GB) to %s", self.url, identity["bytes"] / 1e9, self.folder)
            self._download(hub, identity)
        except UserError:
            raise
        except Exception as error:  # requests, hub and OS errors, told apart below
            raise self._explain(error) from error
        write_json(self._note, identity)
        return self.path

    def _part(self, identity: dict[str, Any]) -> Path:
        """What there is of a download of this state of the file."""
        return self.folder / f".{self.name.replace('/', '-')}.{id_of(identity['etag'])}.part"

    def _download(self, hub: Any, identity: dict[str, Any]) -> None:
        """Add what is missing to the part, and put the whole in place.

        Raises:
            UserError: another process is at it, or the whole is not what the Hub says.
        """
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # pyright: ignore[reportPrivateImportUsage]

        found = self._ask(hub)
        headers = build_hf_headers()
        if urlparse(found.location).netloc != urlparse(hub.constants.ENDPOINT).netloc:
            headers.pop("authorization", None)  # a content server's address says by itself who may read
        part = self._part(identity)
        with held(part), open(part, "ab", opener=never_by_link) as file:
            http_get(
                found.location,
                file,
                resume_size=file.tell(),
                headers=headers,
                expected_size=identity["bytes"],
                displayed_filename=self.name,
            )
        if part.stat().st_size != identity["bytes"] or not has_hash(part, identity["etag"]):
            part.unlink()
            raise UserError(f"convert.json: {self.url}: what came is not what the Hub's hash says; run again")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, self.path)

    def _check_space(self, identity: dict[str, Any]) -> None:
        """Refuse before the download if the disk has no room for it."""
        part, size = self._part(identity), identity["bytes"]
        there = part.stat().st_size if part.exists() else 0
        if shutil.disk_usage(self.folder).free + there < size:
            raise self._no_space(f"it needs {size / 1e9:.1f} GB")

    def _no_space(self, what: str) -> UserError:
        return UserError(
            f"convert.json: {self.url}: no space in {self.folder}: {what}; "
            "set convert.json_cache to a folder on a larger disk and run again"
        )

    def _explain(self, error: Exception) -> UserError:
        """What went wrong and what to do about it, in one line."""
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return self._no_space("the disk is full")
        status = status_of(error)
        page = f"https://huggingface.co/datasets/{self.repo}"
        if status == 401:
            hint = "not known, or private: check the name, or log in with huggingface-cli login or HF_TOKEN (401)"
        elif status == 403:
            hint = f"access refused: ask for it at {page} with the account of your token (403)"
        elif status == 404:
            hint = f"not found: check owner, name and file at {page} (404)"
        elif status == 429:
            hint = "too many requests: wait some minutes, or log in for a higher limit (429)"
        else:
            problem = str(error).strip().splitlines() or [type(error).__name__]
            hint = f"broke off ({problem[0]}); run again, it goes on where it stopped"
        return UserError(f"convert.json: {self.url}: {hint}")


@contextmanager
def held(part: Path) -> Iterator[None]:
    """Hold a part of a download while this is open.

    Raises:
        UserError: another process does.
    """
    lock = FileLock(f"{part}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"convert.json: {part}: another process downloads it; run again when it is done") from None
    try:
        yield
    finally:
        lock.release()


def never_by_link(path: str, flags: int) -> int:
    """Open a file for ``open``; where the folder is a group's, a link in it may lead to a file of the user's."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def id_of(etag: str) -> str:
    """A short name for the state of a file."""
    return hashlib.sha256(etag.encode()).hexdigest()[:16]


def has_hash(path: Path, etag: str) -> bool:
    """Whether a file is what the Hub says: the ETag of a large one is its SHA-256; of others nothing is known."""
    if not SHA256.fullmatch(etag):
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == etag


def import_hub() -> Any:
    """huggingface_hub, set to plain HTTP: a Xet download starts from zero after a break.

    The variable is read when the client is imported; a value that the user has set stays.
    """
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    import huggingface_hub

    return huggingface_hub


def status_of(error: Exception) -> int | None:
    """The HTTP status behind an error of the client, looking through its causes too."""
    current: BaseException | None = error
    while current is not None:
        status = getattr(getattr(current, "response", None), "status_code", None)
        if status is not None:
            return status
        current = current.__cause__ or current.__context__
    return None


def is_refusal(error: Exception) -> bool:
    """Whether the Hub answered, and said no."""
    status = status_of(error)
    return status is not None and 400 <= status < 500
