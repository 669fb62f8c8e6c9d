"""One image: asked for, checked, written aside, put into place."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import re
import threading
import time
from dataclasses import dataclass
from typing import NamedTuple

import urllib3

from theworld.data.entries.headers import BadImage, check_image
from theworld.download.server import NotThere, Refused, Server, TryAgain, describe

PIECE = 1 << 19
LARGEST = 1 << 28
SLOWEST = 4096
"""Bytes a second below which a connection is given up as stalled."""
JPEG = b"\xff\xd8\xff"
HASH = re.compile(r'"([0-9a-f]{32})"')

SAVED, MISSING, FAILED, SILENT, STOPPED, NO_DISK = "saved", "missing", "failed", "silent", "stopped", "no disk"

log = logging.getLogger(__name__)


class Task(NamedTuple):
    """An image to fetch: its place among the wanted, its name ``split/id``, and its path below the target folder."""

    number: int
    name: str
    path: str


class Outcome(NamedTuple):
    """What became of a task.

    Attributes:
        number: of the task.
        kind: SAVED, MISSING for good, FAILED this time, SILENT (no answer for too long), STOPPED, NO_DISK.
        size: bytes, if saved.
        mtime_ns: of the file, if saved.
        status: HTTP status if there was one; the error number of NO_DISK.
        reason: in words.
        name: of the task, if missing.
    """

    number: int
    kind: str
    size: int = 0
    mtime_ns: int = 0
    status: int = 0
    reason: str = ""
    name: str = ""


@dataclass(frozen=True)
class FetchSettings:
    """What a worker process needs to know.

    Attributes:
        base: address of the bucket.
        target: folder for images.
        temporary: folder on the same file system for files that are not whole yet.
        retries: attempts after the first.
        timeout: seconds without a byte.
        patience: seconds without any answer before the run is given up.
    """

    base: str
    target: str
    temporary: str
    retries: int
    timeout: float
    patience: float


class Fetcher:
    """Fetches images; one for all threads of a process."""

    def __init__(self, settings: FetchSettings, server: Server) -> None:
        self.settings, self.server = settings, server

    def fetch(self, task: Task) -> Outcome:
        """Get one image, trying again as long as it makes sense.

        An attempt without any answer counts only if the server answered somebody else meanwhile: when the network is
        gone, all wait for it instead of using up their attempts.
        """
        key = f"{task.name}.jpg"
        began = time.monotonic()
        attempts = waits = 0
        digest = ""
        while True:
            attempt_began = time.monotonic()
            try:
                data = self._download(key, digest)
            except NotThere as answer:
                return Outcome(task.number, MISSING, status=answer.status, reason=answer.reason, name=task.name)
            except Refused as answer:
                return Outcome(task.number, FAILED, reason=str(answer))
            except TryAgain as problem:
                if problem.answered or self.server.last_answer > attempt_began:
                    attempts += 1
                elif self.server.silent_for(began) > self.settings.patience:
                    return Outcome(task.number, SILENT, reason=str(problem))
                if attempts > self.settings.retries:
                    return Outcome(task.number, FAILED, reason=str(problem))
                digest = problem.digest
                if self.server.pause(waits, random.random(), problem.retry_after):
                    return Outcome(task.number, STOPPED)
                waits += 1
                continue
            return self.save(task, data)

    def _download(self, key: str, digest_before: str) -> bytes:
        """The object's bytes, checked in length, hash and form.

        Args:
            key: of the object.
            digest_before: hash of what the last attempt gave, if that did not fit the ETag.
        """
        response = self.server.open(key)
        data = read_body(response, self.server.timeout)
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        stated = HASH.fullmatch(response.headers.get("ETag", ""))
        confirmed = stated is not None and stated[1] == digest
        if stated is not None and not confirmed and self.server.etags_are_hashes:
            if digest != digest_before:
                raise TryAgain("the bytes do not fit the ETag", answered=True, digest=digest)
            # The same bytes twice: this server's ETags are something else than MD5.
            self.server.etags_are_hashes = False
            log.warning("the ETags of %s are not hashes: only lengths and image ends are checked", self.server.base)
        try:
            check_image(data, ".jpg")
        except BadImage as bad:
            if confirmed and data.startswith(JPEG):
                raise NotThere(200, f"{bad.reason} on the server") from bad
            if confirmed:
                raise Refused(f"what the server has is no JPEG: {bad.reason}") from bad
            raise TryAgain(f"{bad.reason}: {bad.detail}", answered=True) from bad
        return data

    def save(self, task: Task, data: bytes) -> Outcome:
        """Write the file aside and rename it; a kill leaves nothing or all of it."""
        aside = os.path.join(self.settings.temporary, f"{os.getpid()}-{threading.get_ident()}")
        path = os.path.join(self.settings.target, task.path)
        try:
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            try:
                os.replace(aside, path)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.replace(aside, path)
        except OSError as error:
            remove(aside)
            return Outcome(task.number, NO_DISK, status=error.errno or 0, reason=f"{path}: {error.strerror}")
        return Outcome(task.number, SAVED, status.st_size, status.st_mtime_ns)


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        log.debug("%s: cannot be removed; the next run does", path)


def read_body(response: urllib3.BaseHTTPResponse, timeout: float) -> bytes:
    """The whole body.

    Raises:
        TryAgain: it broke off, stalled, or came slower than SLOWEST.
        Refused: it is too large for an image.
    """
    stated = response.headers.get("Content-Length", "0")
    length = int(stated) if stated.isascii() and stated.isdigit() else 0
    if length > LARGEST:
        response.close()
        raise Refused(f"{length:,} bytes are not an image")
    deadline = time.monotonic() + 2 * timeout + length / SLOWEST
    pieces = []
    got = 0
    try:
        while piece := response.read1(PIECE, decode_content=False):  # type: ignore[attr-defined]
            pieces.append(piece)
            got += len(piece)
            if time.monotonic() > deadline or got > LARGEST:
                raise TryAgain(f"only {got:,} bytes in {2 * timeout + length / SLOWEST:.0f} s", answered=True)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        response.close()
        raise TryAgain(describe(error), answered=True) from error
    except TryAgain:
        response.close()
        raise
    response.release_conn()
    if length and got != length:
        raise TryAgain(f"{got:,} of {length:,} bytes", answered=True)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
