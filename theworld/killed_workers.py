"""A loader worker that somebody has killed: who, as far as the kernel tells."""

from __future__ import annotations

import errno
import os
import re
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from theworld.errors import RunFailed, causes

DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? (?P<pids>[\d, ]+)\) (?P<how>.*)")
OF_THE_KERNEL = re.compile(r"[Kk]illed process (\d+)")
MESSAGES = Path("/dev/kmsg")
GROUPS = Path("/sys/fs/cgroup")
MOST_MESSAGES = 100_000


def out_of_memory_kills(groups: Path = GROUPS) -> int:
    """Processes of this job's control group that the kernel has killed for want of memory; 0 if it does not tell."""
    total = 0
    for line in _lines(Path("/proc/self/cgroup")):
        name = line.rpartition(":")[2].lstrip("/")
        for events in (groups / name / "memory.events", groups / "memory" / name / "memory.oom_control"):
            counts = dict(text.split(maxsplit=1) for text in _lines(events) if " " in text)
            total = max(total, int(counts.get("oom_kill", 0)))
    return total


def killed_for_memory(pids: set[int]) -> bool:
    """Whether the kernel's messages name one of these processes as killed for want of memory."""
    try:
        descriptor = os.open(MESSAGES, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        for _ in range(MOST_MESSAGES):
            found = OF_THE_KERNEL.search(os.read(descriptor, 8192).decode("utf-8", "replace"))
            if found and int(found[1]) in pids:
                return True
    except OSError:  # no more messages, or they are not for us
        return False
    finally:
        os.close(descriptor)
    return False


@contextmanager
def killed_workers_as_one_line(setting: str = "train_loader.num_workers") -> Iterator[None]:
    """Turn the loader's error about a dead worker into a line that says what killed it.

    Args:
        setting: the key that says how many workers there are.

    Raises:
        RunFailed: instead of it.
    """
    before = out_of_memory_kills()
    try:
        yield
    except RuntimeError as error:
        died = next((match for one in causes(error) if (match := DIED.search(str(one)))), None)
        if died is None:
            raise
        pids = {int(pid) for pid in died["pids"].split(",")}
        how = end_of_workers(error) or died["how"]
        raise RunFailed(f"a loader worker was killed ({what_killed(pids, how, before, setting)})") from error


def end_of_workers(error: BaseException) -> str | None:
    """By which signal the first of the dead workers ended, or with which exit code; None if that is not known.

    Where torch sees by itself that a worker is gone, before the signal that tells it of a child's end, its error has
    the number of the process only; the process object stands in the function that raised it.
    """
    for one in causes(error):
        for frame, _ in traceback.walk_tb(one.__traceback__):
            for worker in frame.f_locals.get("failed_workers", ()):
                if worker.exitcode is not None and worker.exitcode < 0:
                    return f"is killed by signal: {signal.strsignal(-worker.exitcode)}"
                if worker.exitcode:
                    return f"exited with code {worker.exitcode}"
    return None


def what_killed(pids: set[int], how: str, kills_before: int, setting: str) -> str:
    """What is known of the end of some workers, and what to do.

    Args:
        pids: of the workers.
        how: what torch says of it.
        kills_before: :func:`out_of_memory_kills` when the run began.
        setting: the key that says how many workers there are.
    """
    how = how.split(". ")[0].rstrip(". ")
    who = f"process {', '.join(map(str, sorted(pids)))}: {how}"
    if killed_for_memory(pids) or out_of_memory_kills() > kills_before:
        return f"{who}; the kernel's OOM killer: give the job more memory, or lower {setting}"
    if "Bus error" in how or how.endswith(f"code {errno.ENOSPC}"):
        return f"{who}; /dev/shm is full: enlarge it, or lower {setting}"
    if how.endswith(f"code {errno.EMFILE}"):
        return f"{who}; it may open no more files, and each tensor of a batch is one: raise the limit, ulimit -n"
    if "exited" in how:
        return f"{who}; what it said of it stands in the log"
    return f"{who}; the kernel names no want of memory: look who sent the signal"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
