"""The download, from its settings to its report: one at a time per folder, stopped by a signal, however often."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from theworld.config.schema import Config
from theworld.data.shards.lock import exclusive_lock
from theworld.download.download import DISK_FULL, Download, Signals, full_disk
from theworld.download.download_report import Report
from theworld.download.download_settings import Settings, check_settings
from theworld.download.spool import SpooledDownload
from theworld.errors import UserError


def download(config: Config) -> Report:
    """Fetch what is wanted and not there; see the ``download`` keys of the schema.

    Raises:
        UserError: bad settings or input, another download at work, a full disk, a server that knows none of the images.
    """
    return run(check_settings(config))


def run(settings: Settings) -> Report:
    """As :func:`download`, with checked settings."""
    kind = SpooledDownload if settings.to == "mds" else Download
    try:
        settings.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"convert.images: {settings.images}: cannot be written to: {error.strerror}") from error
    try:
        with only_one(settings), listen_to_signals() as signals:
            return kind(settings, signals).run()
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise UserError(full_disk(f"{settings.images}: {error.strerror}")) from error


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """One download per image folder."""
    lock = exclusive_lock(settings.state / "lock", str(settings.images))
    try:
        lock.__enter__()
    except UserError as error:
        raise UserError(f"{settings.images}: another download is at work there; wait for it to end") from error
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


@contextmanager
def listen_to_signals() -> Iterator[Signals]:
    """Note the first SIGINT or SIGTERM; a second one ends the run at once."""
    found = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return

    def note(number: int, frame: Any) -> None:
        if found.number is not None:
            raise KeyboardInterrupt
        found.number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
