"""One run, one folder: which start of a run may write to a save folder.

Each start takes the next number by making ``lease/<number>.json``, which of several processes only one can do, also
where file locks do not work (NFS makes a file exclusively on the server). While it lives it renews that file. Whoever
has the highest number holds the folder: a later start waits until the holder has been silent for :data:`SILENCE`
seconds, and a start that finds a higher number than its own has been superseded and ends without writing (the fence).
The same file says what the start is doing: it is rank 0's sign of life for the other ranks and for ``status.py``.

No process writes another's file, so that one which was stopped for hours and goes on cannot take the folder back.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from theworld.disk_space import free_space, is_full
from theworld.errors import NotNow, UserError
from theworld.files import read_json, write_json
from theworld.processes import kernel_facts

log = logging.getLogger(__name__)

FOLDER = "lease"
BEAT = 10.0
"""Seconds between signs of life."""
SILENCE = 120.0
"""Seconds without one after which the holder counts as dead."""
LOOK_EVERY = 1.0


class Superseded(UserError):
    """A newer start of the run has begun; this one must not write any more."""


@dataclass(frozen=True)
class Process:
    """Who began a start of the run."""

    host: str = field(default_factory=socket.gethostname)
    job: str | None = field(default_factory=lambda: os.environ.get("SLURM_JOB_ID"))
    restart: int = field(default_factory=lambda: int(os.environ.get("SLURM_RESTART_COUNT") or 0))
    machine: str | None = field(default_factory=lambda: this_machine())
    pid: int = field(default_factory=os.getpid)
    started: int | None = field(default_factory=lambda: start_of(os.getpid()))

    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine."""
        return self.machine is not None and self.machine == this_machine()

    def is_gone(self) -> bool:
        """Whether it has certainly ended. False where only another machine could tell."""
        return self.is_here() and self.started != start_of(self.pid)

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}" + (f", job {self.job}" if self.job else "")


@dataclass(frozen=True)
class Holder:
    """What the newest lease file says."""

    launch: int
    process: Process | None = None
    """None while the file is being written, or if it is damaged."""
    beat: int = 0
    """Grows with each sign of life."""
    ended: bool = False
    doing: dict[str, Any] = field(default_factory=dict)
    """What it says of itself."""

    def may_be_followed(self, by: Process) -> bool:
        """Whether its place is free at once: it has said so, or it cannot live any more."""
        if self.ended:
            return True
        if self.process is None:
            return False
        same_job = by.job is not None and by.job == self.process.job
        return self.process.is_gone() or (same_job and by.restart > self.process.restart)


class Lease:
    """The right to write to a save folder, for rank 0.

    Args:
        folder: ``lease`` in the save folder.
        launch: this start's number.
        process: who this is.
    """

    def __init__(self, folder: Path, launch: int, process: Process) -> None:
        self.launch = launch
        self.path = folder / f"{launch}.json"
        self.process = process
        self.beats = 0
        self.each_beat: Callable[[], dict[str, Any]] = dict
        """Called with each sign of life, in the lease's thread; what the lease says is being done."""
        self._newer: Holder | None = None
        self._looked_at = time.monotonic()
        self._saying = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(
        cls,
        save_folder: Path,
        after: int = 0,
        stop: Callable[[], bool] = lambda: False,
        make_room: Callable[[], None] = lambda: None,
    ) -> Lease:
        """Wait until no other start holds the folder, and take it.

        Args:
            save_folder: of the run.
            after: this start gets a higher number than that.
            stop: whether to give up waiting.
            make_room: called where the disk is too full for the lease's file, and nobody else holds the folder.

        Raises:
            UserError: the folder is in use: its holder gave a sign of life while this process looked; or it cannot be
                written.
            NotNow: this process was asked to stop while it waited, or the disk is full.
        """
        folder = save_folder / FOLDER
        with unwritable_as_one_line(save_folder):
            folder.mkdir(parents=True, exist_ok=True)
        own = Process()
        first: Holder | None = None
        while True:
            holder = newest_holder(folder)
            silent = silence(folder, holder.launch) if holder is not None else 0.0
            if holder is None or silent >= SILENCE or holder.may_be_followed(own):
                number = max(after, holder.launch if holder else 0) + 1
                if begin_with_room(save_folder, number, own, make_room):
                    remove_older(folder, number)
                    return cls(folder, number, own)
                continue  # another start was faster
            if first is None or first.launch != holder.launch:
                first = holder
                log.info(
                    "%s is held by attempt %d (%s), silent for %.0f s: waiting until it is %.0f s",
                    save_folder,
                    holder.launch,
                    holder.process or "just begun",
                    silent,
                    SILENCE,
                )
            elif holder.beat != first.beat:
                raise UserError(
                    f"save_folder: {save_folder} is in use by attempt {holder.launch} of the run ({holder.process}), "
                    f"whose last sign of life is {silent:.0f} s old; stop that one first, or set another save_folder"
                )
            if stop():
                raise NotNow(f"stopped while attempt {holder.launch} ({holder.process}) still held {save_folder}")
            time.sleep(LOOK_EVERY)

    def look(self) -> None:
        """Raise if a newer start has begun.

        Raises:
            Superseded: names it.
            NotNow: the folder cannot be read or written.
        """
        try:
            self._look_only()
            if self._newer is None:
                # Writing in the folder before it is listed: an NFS client then asks the server for the list.
                self._say()
                self._look_only()
        except OSError as error:
            raise NotNow(f"{self.path.parent}: cannot be used ({error})") from error
        if self._newer is not None:
            raise superseded(self.path.parent.parent, self.launch, self._newer)

    def move_above(self, number: int) -> None:
        """Take a higher number than this, if it has not: the history that this start goes on with may have come from
        elsewhere after the folder was taken.

        Raises:
            Superseded: a newer start has taken that number.
        """
        if number < self.launch:
            return
        folder = self.path.parent
        with self._saying:
            # Its own number first: the thread that looks for higher ones must not take the new file for another's.
            self.launch, self.path = number + 1, folder / f"{number + 1}.json"
            free = begin(folder, self.launch, self.process)
        if not free:
            self.launch = number
            self.look()
        remove_older(folder, self.launch)

    @property
    def lost(self) -> bool:
        """Whether a newer start has begun, as far as the last look tells; looks anew if this process was asleep."""
        if self._newer is None and time.monotonic() - self._looked_at > 2 * BEAT:
            try:
                self._look_only()
            except OSError as error:
                log.warning("%s: cannot be read (%s), trying again", self.path.parent, error)
        return self._newer is not None

    def release(self) -> None:
        """The start is over; the next one need not wait."""
        self._ended.set()
        self._thread.join()
        try:
            if not self.lost:
                self._say(ended=True)
        except OSError as error:
            log.warning("%s: cannot be released (%s); the next start waits %.0f s", self.path, error, SILENCE)

    def _look_only(self) -> None:
        if self._newer is not None:
            return
        newest = newest_holder(self.path.parent)
        self._looked_at = time.monotonic()
        if newest is not None and newest.launch > self.launch:
            self._newer = newest

    def _say(self, ended: bool = False) -> None:
        with self._saying:
            self.beats += 1
            try:
                write_holder(self.path, Holder(self.launch, self.process, self.beats, ended, self.each_beat()))
            except OSError as error:
                if not is_full(error):
                    raise
                # A sign of life, or of its end long ago, that takes no room.
                os.utime(self.path, (0, 0) if ended else None)

    def _live(self) -> None:
        failing = False
        while not self._ended.wait(BEAT):
            try:
                self._look_only()
                if self._newer is not None:
                    return
                self._say()
                failing = False
            except OSError as error:
                if not failing:
                    log.warning("%s: cannot be renewed (%s), trying again", self.path, error)
                failing = True


def superseded(save_folder: Path, launch: int, newer: Holder) -> Superseded:
    """The line of a start that finds a newer one at work."""
    return Superseded(
        f"a newer start of the run, attempt {newer.launch} ({newer.process}), goes on in {save_folder}; this one, "
        f"attempt {launch}, ends and leaves its files alone"
    )


def newer_start(save_folder: Path, launch: int) -> Superseded | None:
    """Whether a newer start than this one works in the folder; for any rank, which writes nothing to find out."""
    try:
        newest = newest_holder(save_folder / FOLDER)
    except OSError as error:
        log.warning("%s: cannot be read (%s)", save_folder / FOLDER, error)
        return None
    return superseded(save_folder, launch, newest) if newest is not None and newest.launch > launch else None


def begin(folder: Path, number: int, process: Process) -> bool:
    """Make the lease of this number; False if another process has made it."""
    path = folder / f"{number}.json"
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    try:
        write_holder(path, Holder(number, process))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True


def begin_with_room(save_folder: Path, number: int, process: Process, make_room: Callable[[], None]) -> bool:
    """The same; on a full disk once more after room was made.

    Raises:
        UserError, NotNow: it cannot be written.
    """
    with unwritable_as_one_line(save_folder):
        try:
            return begin(save_folder / FOLDER, number, process)
        except OSError as error:
            if not is_full(error):
                raise
        make_room()
        return begin(save_folder / FOLDER, number, process)


@contextmanager
def unwritable_as_one_line(save_folder: Path) -> Iterator[None]:
    """Turn the system's refusal to write in the save folder into a line.

    Raises:
        NotNow: the disk is full.
        UserError: it does not let this user write, or is no folder.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise NotNow(f"save_folder: {save_folder}: {error.strerror}; {free_space(save_folder)}") from error
        raise UserError(
            f"save_folder: {error.filename or save_folder}: cannot be written ({error.strerror}); set another one, or "
            "let this user write there"
        ) from error


def write_holder(path: Path, holder: Holder) -> None:
    write_json(path, asdict(holder), sync=False)


def newest_holder(folder: Path) -> Holder | None:
    """Whoever has the highest number; None if nobody ever held the folder."""
    number = max(numbers(folder), default=None)
    if number is None:
        return None
    content = read_json(folder / f"{number}.json") or {}
    try:
        process, doing = Process(**content["process"]), dict(content.get("doing", {}))
        return Holder(number, process, content["beat"], content["ended"], doing)
    except (TypeError, KeyError, AttributeError, ValueError):
        return Holder(number)


def numbers(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit()]


def remove_older(folder: Path, number: int) -> None:
    """Tidy up: only the newest lease means anything."""
    for path in folder.glob("*.json"):
        launch = path.name.partition(".")[0]
        if launch.isdigit() and int(launch) < number:
            path.unlink(missing_ok=True)


def rank_path(folder: Path, launch: int, rank: int) -> Path:
    """Where a rank gives signs of life while no batch is done: rank 0 in the lease, the others beside it."""
    return folder / (f"{launch}.rank{rank}.json" if rank else f"{launch}.json")


def silence(folder: Path, launch: int) -> float:
    """Seconds since a holder's last sign of life, by the clock of the file system: the nodes' own may differ."""
    try:
        last = (folder / f"{launch}.json").stat().st_mtime
    except FileNotFoundError:
        return 0.0
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".now-") as now:
        now.write(b"\n")
        now.flush()
        return max(os.fstat(now.fileno()).st_mtime - last, 0.0)


def this_machine() -> str | None:
    """Names the running system within which process numbers mean something; None where there is no such name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def start_of(pid: int) -> int | None:
    """When a process began, in the kernel's ticks, so that a later one with its number is another; None if it has
    ended, or this is not Linux."""
    facts = kernel_facts(pid)
    return int(facts[19]) if facts and facts[0] not in "ZX" else None
