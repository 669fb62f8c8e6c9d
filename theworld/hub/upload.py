"""Uploads in the background: one commit a checkpoint, never in training's way.

One thread and a queue of one: while an upload runs, the newest checkpoint waits, and those in between are skipped.
A fault is tried again with growing pauses and then given up with one line; the next save tries again, and what the
Hub has received of a file's content already is not sent again.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi

from theworld.errors import UserError
from theworld.files import write_text
from theworld.hub.access import explain, is_final, quiet_client, retry_after, safe_line, sent
from theworld.hub.export import Snapshot, export
from theworld.hub.layout import REPLACED
from theworld.progress import BytesProgress
from theworld.uploaded import WORK, last_uploaded, note_uploaded

log = logging.getLogger(__name__)

COMMITS_AN_HOUR = 120
"""The Hub allows 128; some are left to the user."""
HOUR = 3600.0
ATTEMPTS = 6
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 900.0


class CommitTimes:
    """When this run has committed, over all its starts, so that it keeps to the Hub's limit."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def recent(self) -> list[float]:
        """Times of the last hour's commits, oldest first."""
        try:
            times = [float(text) for text in self.path.read_text().split()]
        except (FileNotFoundError, ValueError):
            return []
        return [moment for moment in times if moment > time.time() - HOUR]

    def pause(self) -> float:
        """Seconds to wait before the next commit is allowed."""
        recent = self.recent()
        return max(recent[-COMMITS_AN_HOUR] + HOUR - time.time(), 0.0) if len(recent) >= COMMITS_AN_HOUR else 0.0

    def note(self) -> None:
        """A commit is about to be made."""
        write_text(self.path, "\n".join(str(moment) for moment in [*self.recent(), time.time()]))


class Uploader:
    """Sends checkpoints to a repo, for rank 0.

    Args:
        save_folder: of the run; what is on its way is kept in ``.hub/`` below it.
        repo: ``OWNER/NAME``, which exists.
        run_name: for the commits' titles.
        client: makes the Hub's client, in the thread that uploads.
        may_send: called there before each upload; raises UserError if this run must not send any more.
    """

    def __init__(
        self,
        save_folder: Path,
        repo: str,
        run_name: str,
        client: Callable[[], HfApi] = quiet_client,
        may_send: Callable[[], None] = lambda: None,
    ) -> None:
        self.save_folder = save_folder
        self.repo = repo
        self.run_name = run_name
        self.client = client
        self.may_send = may_send
        self.work = save_folder / WORK
        self.uploaded = last_uploaded(save_folder, repo)
        self.fault: str | None = None
        self.added = 0
        self.sent = 0
        """The number, counted as ``added``, of the newest that the Hub has of this start."""
        self._waiting: tuple[int, Snapshot] | None = None
        self._busy = False
        self._change = threading.Condition()
        self._stop = threading.Event()
        self._closing = False
        self._progress: BytesProgress | None = None
        """Of what is on its way. While the run trains lines only: the terminal's bar is the training's."""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Clear what a killed run left half way, and begin to listen."""
        for path in [*self.work.glob("waiting-*"), self.work / "export"]:
            shutil.rmtree(path, ignore_errors=True)
        self.work.mkdir(parents=True, exist_ok=True)
        self.commits = CommitTimes(self.work / "commits.txt")
        # A daemon: whatever the network does, the process can end.
        self._thread = threading.Thread(target=self._listen, name="hub-upload", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Checkpoints that are to be uploaded, or were and could not be, since the newest that the Hub has."""
        return self.added - self.sent

    def add(self, checkpoint: Path) -> None:
        """Have a checkpoint uploaded, instead of one that still waits."""
        try:
            # A folder of its own: the same checkpoint may be written again while it is on its way.
            self.added += 1
            folder = self.work / f"waiting-{self.added}-{checkpoint.name}"
            snapshot = Snapshot.take(self.save_folder, checkpoint, folder)
        except OSError as error:
            log.warning("%s is not uploaded: %s", checkpoint, explain(error, self.repo))
            return
        with self._change:
            skipped, self._waiting = self._waiting, (self.added, snapshot)
            self._change.notify_all()
        if skipped is not None:
            log.info("batch %d is not uploaded, batch %d follows it", skipped[1].batch, snapshot.batch)
            shutil.rmtree(skipped[1].folder, ignore_errors=True)

    def finish(self, seconds: float) -> bool:
        """Wait for what is on its way, so long at the most.

        Returns:
            Whether everything has been uploaded.
        """
        end = time.monotonic() + seconds
        with self._change:
            self._closing = True
            self._change.notify_all()
            if self._busy or self._waiting is not None:
                log.info("waiting up to %.0f s for the upload to %s", seconds, self.repo)
                if self._progress is not None:
                    self._progress.show()
            while (self._busy or self._waiting is not None) and time.monotonic() < end:
                self._change.wait(min(1.0, max(end - time.monotonic(), 0.0)))
            done = not self._busy and self._waiting is None
        self._stop.set()
        if not done:
            log.warning("the upload to %s did not end in %.0f s; the next start of the run does it", self.repo, seconds)
        return done

    def _listen(self) -> None:
        while True:
            with self._change:
                while self._waiting is None and not self._closing:
                    self._change.wait()
                next_one, self._waiting = self._waiting, None
                if next_one is None:
                    return
                self._busy = True
            number, snapshot = next_one
            try:
                if self._upload(snapshot):
                    self.sent = number
            finally:
                shutil.rmtree(snapshot.folder, ignore_errors=True)
                with self._change:
                    self._busy = False
                    self._change.notify_all()

    def _upload(self, snapshot: Snapshot) -> bool:
        """Whether the Hub has it."""
        begun = time.monotonic()
        out = self.work / "export"
        try:
            self.may_send()
            export(snapshot, out, self.repo)
            self.may_send()
            with self._change:
                self._progress = upload_progress(out, snapshot.batch, bar=self._closing)
            with watched(self._progress):
                done = send(self.client(), out, self.repo, snapshot.batch, self.run_name, self.commits, self._stop)
        except UserError as error:
            self._give_up(snapshot, str(error))
            return False
        except Exception as error:  # whatever the client raises: training goes on
            self._give_up(snapshot, explain(error, self.repo))
            return False
        else:
            self.fault = None
            self.uploaded = snapshot.batch
            note_uploaded(self.save_folder, self.repo, snapshot.batch, done.oid)
            log.info("uploaded batch %d to %s in %.0f s", snapshot.batch, done.commit_url, time.monotonic() - begun)
            return True
        finally:
            self._progress = None
            shutil.rmtree(out, ignore_errors=True)

    def _give_up(self, snapshot: Snapshot, reason: str) -> None:
        """Say it once; the same fault at the next save is only counted."""
        if reason != self.fault:
            log.warning("batch %d is not uploaded: %s; the next save tries again", snapshot.batch, reason)
        self.fault = reason


def upload_progress(folder: Path, batch: int, bar: bool = True) -> BytesProgress:
    """How far an upload of a folder is."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return BytesProgress(size, f"upload of batch {batch}", bar=bar)


def watched(progress: BytesProgress) -> AbstractContextManager[None]:
    """What this process sends to the Hub while this is open. What the Hub has already is not sent, and done at once."""
    begun = sent.total
    return progress.watch(lambda: sent.total - begun)


def send(
    client: HfApi, folder: Path, repo: str, batch: int, run_name: str, commits: CommitTimes, stop: threading.Event
) -> CommitInfo:
    """Upload a folder as one commit, trying again after faults that may pass.

    Returns:
        The commit.

    Raises:
        Exception: the client's, when the Hub has refused or the attempts are used up.
    """
    pause = FIRST_PAUSE
    for attempt in range(1, ATTEMPTS + 1):
        if commits.pause():
            log.info("%d commits in the last hour: the next waits %.0f s", COMMITS_AN_HOUR, commits.pause())
            stop.wait(commits.pause())
        try:
            commits.note()
            return client.upload_folder(
                repo_id=repo,
                folder_path=folder,
                commit_message=f"{run_name}: batch {batch}",
                delete_patterns=REPLACED,
            )
        except Exception as error:  # requests, hub and OS errors, told apart by is_final
            if is_final(error) or attempt == ATTEMPTS or stop.is_set():
                raise
            wait = max(min(retry_after(error) or 0.0, HOUR), pause)
            if attempt == 1:
                log.warning("upload of batch %d: %s; trying again in %.0f s", batch, safe_line(error), wait)
            stop.wait(wait)
            pause = min(2 * pause, LONGEST_PAUSE)
    raise AssertionError("unreachable")
