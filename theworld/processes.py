"""Worker processes: they leave Ctrl-C to their parent, and do not outlive it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from pathlib import Path


def leave_interrupts_to_parent() -> None:
    """In a worker: Ctrl-C reaches every process of the terminal; the parent says what to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_with_parent(*_: object) -> None:
    """In a worker: end at once when the parent does, killed ones included, which cannot tell their workers to stop.

    Takes and ignores what a pool or a data loader passes to its initialiser.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in worker processes only"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def kernel_facts(pid: int) -> list[str]:
    """What the kernel says of a process, from its state on (a letter, then the parent's number, ...); empty if it is
    gone, or this is not Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
