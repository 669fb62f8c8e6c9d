"""One run of the download: everything that is wanted and exists."""

from __future__ import annotations

import errno
import logging
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from theworld.download.download_plan import Plan, make_plan
from theworld.download.download_report import DownloadProgress, Report
from theworld.download.download_settings import MEAN_BYTES, Settings
from theworld.download.fetch import FAILED, MISSING, NO_DISK, SAVED, SILENT, FetchSettings, Outcome, Task
from theworld.download.state import State
from theworld.download.tars import TarEnd, TarTask
from theworld.download.wanted import Wanted, read_wanted
from theworld.download.workers import Workers
from theworld.errors import UserError

REFUSALS = 200
"""This many refusals without a single image: the address is wrong, rather than the images missing."""
FAILURES = 64
"""This many images given up in a row: the service is in trouble, and the rest would fail too."""
REFUSALS_AT_LEAST = 10
"""This many images may be missing, however few are wanted."""
JUDGED = 1000
"""Refusals that are judged together: those of an outage are not written down."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
HEX_DIGITS = "0123456789abcdef"

log = logging.getLogger(__name__)


def full_disk(place: str) -> str:
    return f"{place}: the disk is full; free some space and run the same command again, it goes on"


class Signals:
    """The first signal that came, or None."""

    number: int | None = None


class Download:
    """One run on an image folder that it has locked."""

    def __init__(self, settings: Settings, signals: Signals) -> None:
        self.settings, self.signals = settings, signals
        self.state = State(settings.images, settings.state)
        self.report = Report()
        self.known_server = self.state.has_answered(settings.base)
        self.refused: list[dict[str, Any]] = []
        self.failures_in_a_row = 0
        self.last_outcome = 0.0
        self.error: str | None = None

    def run(self) -> Report:
        started = time.monotonic()
        self.state.note_finished(None)
        self.state.clear_temporary()
        self.settings.target.mkdir(parents=True, exist_ok=True)
        self.wanted = self._read_wanted()
        self._prepare()
        self._begin(make_plan(self.settings, self.state, self.wanted, lambda: self.signals.number is not None))
        try:
            if self.left.any() and not self._stop_asked():
                self._fetch_all()
        finally:
            self.report.seconds = time.monotonic() - started
        if self.error:
            raise UserError(self.error)
        self._end()
        return self.report

    # ---- before and after

    def _read_wanted(self) -> Wanted:
        last = time.monotonic()

        def progress(read: int, found: int) -> None:
            nonlocal last
            if self.signals.number is not None:
                raise KeyboardInterrupt
            if time.monotonic() - last > 60:
                last = time.monotonic()
                log.info("reading the ids: %.1f GB of JSON, %s ids", read / 1e9, f"{found:,}")

        return read_wanted(self.settings, progress)

    def _prepare(self) -> None:
        """What has to be done before the folder is looked at."""

    def _begin(self, plan: Plan) -> None:
        """Counts before anything is fetched, and a warning if the disk is too small."""
        summary, report = self.wanted.summary, self.report
        self.left = plan.left(self.settings.retry_missing)
        self.fetched = np.zeros(len(self.wanted), bool)
        self.replace = plan.replace
        report.wanted, report.unusable, report.broken_json = len(self.wanted), summary.unusable, summary.broken
        report.before, report.broken = int(plan.there.sum()), plan.broken
        report.missing = report.wanted - report.before - int(self.left.sum())
        self.state.drop_missing(self.wanted.keys[plan.there])
        if plan.only_files:
            hint = "python convert/to_mds.py takes them up"
            log.info("%s images are in %s as files: %s", f"{plan.only_files:,}", self.settings.images, hint)
        free, need = shutil.disk_usage(self.settings.target).free, int(self.left.sum()) * MEAN_BYTES
        if self.settings.to == "images" and free < need:
            log.warning("%s: %.0f GB free, about %.0f GB needed", self.settings.images, free / 1e9, need / 1e9)

    def _end(self) -> None:
        if self.refused and not self.known_server:
            first = self.refused[0]
            raise UserError(
                f"{self.settings.base}: has none of the {len(self.refused):,} images asked for (the first: "
                f"{first['key']}: {first['status']} {first['reason']}); check download.endpoint and the ids"
            )
        self._judge_refusals()
        self.state.drop_missing(self.wanted.keys[self.fetched])
        self.state.note_finished(self.wanted.digest if self.report.complete else None)

    # ---- fetching

    def _fetch_all(self) -> None:
        settings = self.settings
        self.progress = DownloadProgress(int(self.left.sum()), settings.target)
        fetch = FetchSettings(
            base=settings.base,
            target=str(settings.target),
            temporary=str(self.state.temporary),
            retries=settings.retries,
            timeout=settings.timeout,
            patience=settings.patience if self.known_server else settings.patience_at_first,
        )
        connections = min(settings.workers, int(self.left.sum()))
        try:
            with Workers(fetch, connections) as self.workers:
                if settings.source == "tar":
                    self._fetch_tars()
                self._fetch_images()
        finally:
            self.progress.close()

    def _fetch_images(self) -> None:
        """Rounds over what is left, as long as each brings something and some failed."""
        while not self._stop_asked():
            saved = self.report.saved
            self.report.failed.clear()
            self.last_outcome = time.monotonic()
            for outcomes in self.workers.fetch(self._tasks()):
                self._take(outcomes)
                self._check_progress(bool(outcomes))
            if not self.report.failed or self.report.saved == saved:
                return

    def _tasks(self) -> Iterator[Task]:
        """What is left, in the order it was named."""
        for number, name in enumerate(self.wanted.names()):
            if self.left[number]:
                yield Task(number, name, self.replace.get(number) or self._path(name))

    def _path(self, name: str) -> str:
        file = f"{name.rpartition('/')[2]}.jpg"
        return f"{file[:2]}/{file}" if self.settings.layout == "sharded" and self.settings.to == "images" else file

    def _fetch_tars(self) -> None:
        """The tars of which more than half is still wanted."""
        groups: dict[str, list[int]] = {digit: [] for digit in HEX_DIGITS}
        for number, name in enumerate(self.wanted.names()):
            split, _, image = name.rpartition("/")
            if self.left[number] and split == "train" and image[:1] in groups and number not in self.replace:
                groups[image[0]].append(number)
        tars = []
        for digit, members in groups.items():
            if 2 * len(members) <= self.settings.group:
                continue
            numbers = np.array(members, np.int64)
            numbers = numbers[np.argsort(self.wanted.keys[numbers])]
            sharded = self.settings.layout == "sharded"
            tars.append(TarTask(f"tar/train_{digit}.tar.gz", self.wanted.keys[numbers], numbers, sharded))
            log.info("streaming tar/train_%s.tar.gz for %s images", digit, f"{len(numbers):,}")
        for message in self.workers.stream(tars):
            self._take(outcome for outcome in message if isinstance(outcome, Outcome))
            for end in message:
                if isinstance(end, TarEnd):
                    self.report.from_tars += end.kept
                    if end.problem:
                        log.warning("%s: %s; the rest goes by single requests", end.key, end.problem)

    def _stop_asked(self) -> bool:
        if self.signals.number is not None and not self.report.stopped:
            self.report.stopped = signal.Signals(self.signals.number).name
        return bool(self.report.stopped or self.error)

    # ---- outcomes

    def _take(self, outcomes: Iterable[Outcome]) -> None:
        """Count and remember what came; stop the workers if it makes no sense to go on."""
        saved: list[Outcome] = []
        gone: list[Outcome] = []
        failed = 0
        for outcome in outcomes:
            if outcome.kind == SAVED:
                saved.append(outcome)
                self.failures_in_a_row = 0
            elif outcome.kind == MISSING:
                gone.append(outcome)
                self.failures_in_a_row = 0
            elif outcome.kind == FAILED:
                failed += 1
                self.failures_in_a_row += 1
                self.report.failed[outcome.reason] += 1
                self._check_service(outcome)
            elif outcome.kind == SILENT:
                self._silent(outcome)
            elif outcome.kind == NO_DISK:
                self._no_disk(outcome)
        self._note_saved(saved)
        self._note_missing(gone)
        self.progress.took(len(saved), len(gone), failed, sum(outcome.size for outcome in saved))
        if self._stop_asked():
            self.workers.stop()

    def _note_saved(self, saved: list[Outcome]) -> None:
        if not saved:
            return
        if not self.known_server:
            self.known_server = True
            self.state.note_answer(self.settings.base)
        numbers = [outcome.number for outcome in saved]
        self.left[numbers] = False
        self.fetched[numbers] = True
        self.report.saved += len(saved)
        self.report.bytes += sum(outcome.size for outcome in saved)
        self._remember(saved)

    def _remember(self, saved: list[Outcome]) -> None:
        self.state.add_whole(
            (int(self.wanted.keys[outcome.number]), outcome.size, outcome.mtime_ns) for outcome in saved
        )

    def _note_missing(self, gone: list[Outcome]) -> None:
        """Held back until the server has proven to be the right one by giving an image, and so many are asked for that
        an outage shows."""
        for outcome in gone:
            line = {"id": outcome.name.rpartition("/")[2], "key": f"{outcome.name}.jpg"}
            self.refused.append({**line, "status": outcome.status, "reason": outcome.reason})
            self.left[outcome.number] = False
        self.report.missing += len(gone)
        if self.known_server and len(self.refused) >= JUDGED:
            self._judge_refusals()
        elif len(self.refused) >= REFUSALS and not self.known_server and not self.error:
            self._end()

    def _judge_refusals(self) -> None:
        """Write down what is missing for good, unless it is so much that it must be an outage, or a missing right."""
        if not self.refused:
            return
        report, refused = self.report, self.refused
        answered = report.before + report.saved + report.missing
        self.refused = []
        if report.missing <= max(REFUSALS_AT_LEAST, self.settings.most_missing * answered):
            self.state.add_missing(refused)
            return
        report.missing -= len(refused)
        (status, reason), count = Counter((line["status"], line["reason"]) for line in refused).most_common(1)[0]
        report.stopped = (
            f"{len(refused):,} of {answered:,} images were refused ({count:,} times {status} {reason}): that is an "
            "outage or a missing right, and nothing is written down; if they are really missing, raise "
            "download.most_missing"
        )

    def _check_progress(self, came: bool) -> None:
        """End a download in which nothing arrives any longer, whatever the reason."""
        now = time.monotonic()
        if came or self._stop_asked():
            self.last_outcome = now
        elif now - self.last_outcome > self.settings.stalled:
            self.report.stopped = f"no image has come or failed for {self.settings.stalled / 60:.0f} minutes"
            self.workers.stop()

    def _check_service(self, outcome: Outcome) -> None:
        if self.failures_in_a_row >= max(FAILURES, self.settings.workers) and not self.report.stopped:
            self.report.stopped = f"{self.failures_in_a_row} images failed one after the other: {outcome.reason}"

    def _silent(self, outcome: Outcome) -> None:
        if self.known_server:
            self.report.stopped = f"no answer for {self.settings.patience / 60:.0f} minutes: {outcome.reason}"
        else:
            self.error = (
                f"{self.settings.base}: no answer in {self.settings.patience_at_first:.0f} s ({outcome.reason}); "
                "check the network, the proxy variables and download.endpoint"
            )

    def _no_disk(self, outcome: Outcome) -> None:
        full = outcome.status in DISK_FULL
        self.error = full_disk(outcome.reason) if full else f"{outcome.reason}: cannot be written; check convert.images"
