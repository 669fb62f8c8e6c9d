"""The page of a run: figures over its batches, its starts on a time line, the audit, checkpoints, configuration."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from theworld.audit import Audit
from theworld.checkpoint.on_disk import list_checkpoints
from theworld.config.hub_url import REPO
from theworld.errors import UserError
from theworld.files import read_json_lines
from theworld.monitor.ends import End, read_ends
from theworld.monitor.run_status import RunStatus, described, read_status
from theworld.monitor.status_table import as_rows, duration, size
from theworld.pages.drawing import Bar, line_figure, time_figure
from theworld.pages.page_file import render
from theworld.pages.run_curves import Curves, read_curves
from theworld.plain_text import hide_secrets
from theworld.run_audit import audit_run
from theworld.uploaded import Uploads, read_uploads

log = logging.getLogger(__name__)

FIGURES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("Loss", ("loss/train/total", "metrics/*"), "nats per answer token"),
    ("Learning rate", ("lr/*", "lr-*"), ""),
    ("Throughput", ("throughput/samples_per_sec",), "samples/s"),
    ("Model FLOPs utilisation", ("throughput/device/mfu",), "share"),
    ("Time that the loader was waited for", ("loader/wait_share",), "share"),
    ("Memory of a GPU", ("memory/peak_reserved_mem", "memory/peak_allocated_mem"), "GB"),
    ("Gradient norm before clipping", ("run/grad_norm",), ""),
    ("Padding", ("data/padding",), "share"),
)
"""Title, metrics (``*`` stands for any end) and unit."""
COUNTS = {
    "data/samples_without_loss": "samples without loss",
    "data/turns_cut": "turns cut (beyond max_seq_len)",
    "data/irregularities": "turns and boxes left out",
    "data/lost_steps": "steps left out, not finite",
    "run/steps_lost": "steps lost by stops",
}
HUB = "https://huggingface.co"
COMMIT = re.compile("[0-9a-f]{40}")
MOST_STARTS = 200
MOST_ROWS = 50


@dataclass(frozen=True)
class Start:
    """A start of the run. ``kind``: good, warn or bad, by how it has ended; soft where that is not known."""

    number: int
    begin: float
    end: float
    facts: dict[str, Any]
    how: str
    kind: str


def run_page(save_folder: Path, audited: bool = True) -> str:
    """The page.

    Args:
        save_folder: the run's.
        audited: hold the ledger against the data set, which takes a minute for a million samples.

    Raises:
        UserError: there is no such run, or its records are damaged.
    """
    status = read_status(save_folder)
    curves = read_curves(save_folder)
    starts = read_starts(save_folder, status, curves)
    config = save_folder / "config.yaml"
    return render(
        "run.html",
        name=save_folder.resolve().name,
        written=datetime.now(UTC).isoformat(timespec="minutes"),
        rows=as_rows(status),
        state=status.state,
        audit=audit_of(save_folder) if audited else None,
        figures=figures_of(curves, starts),
        timeline=Markup(time_figure([bar_of(start) for start in starts[-MOST_STARTS:]])) if starts else None,
        starts=starts[-MOST_STARTS:],
        left_out=max(0, len(starts) - MOST_STARTS),
        moment=moment,
        duration=duration,
        checkpoints=checkpoints_of(save_folder),
        counts=[(label, curves.last(name)) for name, label in COUNTS.items() if curves.last(name) is not None],
        evaluations=evaluations_of(save_folder),
        config=hide_secrets(config.read_text(encoding="utf-8")) if config.is_file() else None,
    )


def read_starts(save_folder: Path, status: RunStatus, curves: Curves) -> list[Start]:
    """The starts of a run, oldest first, and how each has ended. One that could not say so ended where its last metric
    was written, at the latest when the next began."""
    ends = {end.launch: end for end in read_ends(save_folder)}
    try:
        lines = read_json_lines(save_folder / "launches.jsonl")
        begins = [datetime.fromisoformat(line["time"]).timestamp() for line in lines]
        numbers = [int(line["launch"]) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{save_folder / 'launches.jsonl'}: damaged ({error})") from error
    starts = []
    for place, (line, number, begin) in enumerate(zip(lines, numbers, begins, strict=True)):
        following = begins[place + 1] if place + 1 < len(begins) else datetime.now(UTC).timestamp()
        end = ends.get(number)
        newest = place == len(lines) - 1
        if end is not None and end.time:
            ended = datetime.fromisoformat(end.time).timestamp()
        elif newest and status.state in ("running", "waiting", "stuck"):
            ended = following
        else:
            ended = max((time for time in curves.times if begin <= time <= following), default=begin)
        how, kind = ending(end, status.state if newest else "stopped")
        starts.append(Start(number, begin, max(begin, ended), line, how, kind))
    return starts


def ending(end: End | None, state: str) -> tuple[str, str]:
    """How a start has ended, in words, and the kind of its bar."""
    if end is None:
        return ("still at work", "soft") if state in ("running", "waiting", "stuck") else ("killed, or crashed", "bad")
    reason = f": {end.reason}" if end.reason else ""
    kind = "good" if end.exit_code == 0 else "warn" if end.exit_code in (75, 85) else "bad"
    return f"exit code {end.exit_code}{reason}", kind


def bar_of(start: Start) -> Bar:
    return Bar(start.begin, start.end, f"start {start.number}", start.kind)


def figures_of(curves: Curves, starts: Sequence[Start]) -> list[tuple[str, Markup]]:
    """Title and SVG of each figure of which the run has logged something."""
    stops = [int(start.facts.get("resumed_batch") or 0) for start in starts]
    found = []
    for title, names, unit in FIGURES:
        shown = [(name, curves.points(name)) for name in sorted(curves.values) if any(fits(name, one) for one in names)]
        if any(name.startswith("lr/") for name, _ in shown):  # the same rates by the names of their parts
            shown = [(name, points) for name, points in shown if not name.startswith("lr-")]
        if shown:
            found.append((title, Markup(line_figure(shown, [stop for stop in stops if stop], unit))))
    return found


def fits(name: str, pattern: str) -> bool:
    """Whether a metric is meant. Of the evaluation's metrics the losses are."""
    if pattern == "metrics/*":
        return name.startswith("metrics/") and name.lower().endswith("loss")
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def audit_of(save_folder: Path) -> Audit | str:
    """The verdicts, or why there are none."""
    try:
        return audit_run(save_folder)
    except UserError as error:
        return str(error)


def checkpoints_of(save_folder: Path) -> list[dict[str, Any]]:
    """Name, batch, size, and place on the Hub of each checkpoint, newest first; those that only the Hub has too."""
    uploads = read_uploads(save_folder)
    found = []
    for checkpoint in list_checkpoints(save_folder)[:MOST_ROWS]:
        try:
            one = described(checkpoint)
        except FileNotFoundError:  # removed meanwhile, as the retention does
            continue
        found.append({"name": one.name, "batch": one.batch, "size": size(one.bytes), "whole": one.whole})
    here = {one["batch"] for one in found}
    gone = sorted({*uploads.commits, uploads.batch} - here - {-1}, reverse=True)[:MOST_ROWS]
    found += [{"name": None, "batch": batch, "size": "", "whole": True} for batch in gone]
    found.sort(key=lambda one: -one["batch"])
    return [{**one, "hub": hub_place(uploads, one["batch"])} for one in found]


def hub_place(uploads: Uploads, batch: int) -> dict[str, str] | None:
    """Name and address of the commit that has a checkpoint; None if it is not known to be on the Hub."""
    commit = uploads.commits.get(batch, "")
    # The file lies in a folder that others may write: what is no name is not made a link.
    if not REPO.fullmatch(uploads.repo) or not (COMMIT.fullmatch(commit) if commit else batch == uploads.batch):
        return None
    name = f"{uploads.repo}@{commit[:8]}" if commit else uploads.repo
    return {"name": name, "address": f"{HUB}/{uploads.repo}/tree/{commit or 'main'}"}


def evaluations_of(save_folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """The scores that lie in the run's ``evaluations/``: file and what it says overall."""
    found = []
    for path in sorted((save_folder / "evaluations").glob("*.json")):
        try:
            scores = json.loads(path.read_text(encoding="utf-8"))
            found.append((path.name, {key: scores[key] for key in ("overall", "qualitative", "quantitative")}))
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s: no table of scores, left out of the page (%s)", path, error)
    return found


def moment(seconds: float) -> str:
    """A time since 1970 as a person reads it, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
