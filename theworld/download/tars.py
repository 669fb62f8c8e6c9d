"""The public tars, streamed: only wanted members are kept, nothing else touches the disk.

A broken connection is taken up at the byte where it broke (a range request for the same ETag), without the process
losing its place. After a kill the rest follows from what is still wanted: if that is still more than half of the group,
the tar is streamed again and members that are there are passed over; if not, single requests get them.
"""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import time
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import urllib3

from theworld.data.entries.check_entry import id_key
from theworld.data.entries.headers import BadImage, check_image
from theworld.data.entries.images import positions
from theworld.download.fetch import LARGEST, Fetcher, Outcome, Task
from theworld.download.server import NotThere, Refused, Server, TryAgain, describe

BUFFER = 1 << 20


class TarTask(NamedTuple):
    """A tar to stream.

    Attributes:
        key: of the object.
        keys: (n,) uint64, sorted: keys of the wanted ids.
        numbers: (n,) int64, their places among the wanted.
        sharded: files go to ``ab/<id>.jpg`` instead of ``<id>.jpg``.
    """

    key: str
    keys: np.ndarray
    numbers: np.ndarray
    sharded: bool


class TarEnd(NamedTuple):
    """What became of a tar: the images kept, and in words why it was not read to its end, or ""."""

    key: str
    kept: int
    problem: str


class Stopped(Exception):
    """The download is being stopped."""


class ObjectReader(io.RawIOBase):
    """The bytes of an object as a file to read once; a broken connection goes on where it broke.

    Args:
        server: the bucket.
        key: of the object.
        retries: attempts in a row that bring no byte.
        patience: seconds without any answer.
    """

    def __init__(self, server: Server, key: str, retries: int, patience: float) -> None:
        self.server, self.key, self.retries, self.patience = server, key, retries, patience
        self.place = 0
        self.length: int | None = None
        self.etag: str | None = None
        self.response: urllib3.BaseHTTPResponse | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[override]
        began = time.monotonic()
        attempts = waits = 0
        while self.length is None or self.place < self.length:
            if self.server.stopping.is_set():
                raise Stopped
            attempt_began = time.monotonic()
            try:
                piece = self._read(len(buffer))
            except TryAgain as problem:
                self.close_response()
                if problem.answered or self.server.last_answer > attempt_began:
                    attempts += 1
                elif self.server.silent_for(began) > self.patience:
                    raise
                if attempts > self.retries:
                    raise
                if self.server.pause(waits, random.random(), problem.retry_after):
                    raise Stopped from problem
                waits += 1
                continue
            buffer[: len(piece)] = piece
            self.place += len(piece)
            return len(piece)
        return 0

    def _read(self, size: int) -> bytes:
        if self.response is None:
            self.response = self.server.open(self.key, self.place, self.etag if self.place else None)
            if self.place == 0:
                stated = self.response.headers.get("Content-Length")
                if stated is None or not (stated.isascii() and stated.isdigit()):
                    raise Refused("the server does not tell the tar's length")
                self.length, self.etag = int(stated), self.response.headers.get("ETag")
        try:
            piece = self.response.read1(size, decode_content=False)  # type: ignore[attr-defined]
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TryAgain(describe(error), answered=True) from error
        if not piece:
            raise TryAgain("the connection ended early", answered=True)
        return piece

    def close_response(self) -> None:
        if self.response is not None:
            self.response.close()
            self.response = None

    def close(self) -> None:
        self.close_response()
        super().close()


def stream_tar(task: TarTask, fetcher: Fetcher, report: Callable[[Outcome], None]) -> TarEnd:
    """Keep the wanted members of a tar. What it does not hold, or not whole, is left to single requests.

    Args:
        task: the tar and what is wanted of it.
        fetcher: writes the files.
        report: called with each image kept.
    """
    settings = fetcher.settings
    open_rows = np.ones(len(task.keys), bool)
    kept = 0
    problem = ""
    reader = ObjectReader(fetcher.server, task.key, settings.retries, settings.patience)
    try:
        with (
            reader,
            gzip.GzipFile(fileobj=io.BufferedReader(reader, BUFFER)) as plain,
            tarfile.open(fileobj=plain, mode="r|") as tar,
        ):
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise: a hundred thousand of them
                row = wanted_row(member, task.keys)
                if row is None or not open_rows[row]:
                    continue
                outcome = keep_member(tar, member, Task(int(task.numbers[row]), *place_of(member, task)), fetcher)
                if outcome is None:
                    continue
                report(outcome)
                open_rows[row] = False
                kept += 1
                if not open_rows.any():
                    break
    except Stopped:
        problem = "stopped"
    except (NotThere, Refused) as answer:
        problem = str(answer)
    except (TryAgain, tarfile.TarError, zlib.error, EOFError, OSError) as error:
        problem = describe(error)
    return TarEnd(task.key, kept, problem)


def wanted_row(member: tarfile.TarInfo, keys: np.ndarray) -> int | None:
    """Row of the member among the wanted keys, if it is one."""
    name = member.name.rpartition("/")[2]
    if not member.isreg() or not name.endswith(".jpg") or member.size > LARGEST:
        return None
    rows, there = positions(keys, np.array([id_key(name.removesuffix(".jpg"))], np.uint64))
    return int(rows[0]) if there[0] else None


def place_of(member: tarfile.TarInfo, task: TarTask) -> tuple[str, str]:
    """Name and path of a wanted member; its id is known to be one of ours, so the name is safe."""
    file = member.name.rpartition("/")[2]
    return f"train/{file.removesuffix('.jpg')}", f"{file[:2]}/{file}" if task.sharded else file


def keep_member(tar: tarfile.TarFile, member: tarfile.TarInfo, task: Task, fetcher: Fetcher) -> Outcome | None:
    """Write a member if it is a whole JPEG."""
    stream = tar.extractfile(member)
    assert stream is not None
    data = stream.read()
    if len(data) != member.size:
        raise EOFError(f"{member.name} is cut short")
    try:
        check_image(data, ".jpg")
    except BadImage:
        return None
    return fetcher.save(task, data)
