"""A run's state as lines for a person."""

from __future__ import annotations

from typing import Any

from theworld.monitor.run_status import RunStatus, percent

UNKNOWN = "-"


def as_lines(status: RunStatus) -> str:
    """What :func:`~theworld.monitor.run_status.read_status` found, a figure a line."""
    return "\n".join(f"{name:<11} {text}" for name, text in as_rows(status))


def as_rows(status: RunStatus) -> list[tuple[str, str]]:
    """The same as names and texts."""
    told = status.figures
    return [
        ("state", status.state + (f" ({status.why})" if status.why else "")),
        ("start", start_line(status)),
        ("place", place_line(told)),
        ("speed", speed_line(told)),
        ("loss", f"{number(told.get('loss'), 4)}, gradient norm {number(told.get('grad_norm'), 3)}"),
        ("checkpoint", checkpoint_line(status)),
        ("Hub", f"{told['hub_backlog']} checkpoints to upload" if told.get("hub_backlog") is not None else UNKNOWN),
        (
            "starts",
            f"{status.starts}, {status.preemptions} preemptions, {status.crashes} crashes, {status.steps_lost} steps "
            "lost",
        ),
        (
            "samples",
            f"{number(told.get('samples_without_loss'))} carried no loss, {number(told.get('lost_steps'))} steps were "
            "not finite",
        ),
        ("disk", f"{size(status.disk_free_bytes)} left"),
    ]


def start_line(status: RunStatus) -> str:
    if status.launch is None:
        return UNKNOWN
    beat = "" if status.heartbeat_age_s is None else f", last sign of life {status.heartbeat_age_s:.0f} s ago"
    return f"{status.launch} on {status.where or 'an unknown machine'}{beat}"


def place_line(told: dict[str, Any]) -> str:
    if told.get("batch") is None:
        return UNKNOWN
    share = percent(told["samples"], told["of"])
    of = f" of {told['of']:,} samples ({number(share, 1)} %)" if told.get("of") else " samples"
    return f"pass {told['pass']}, {told['samples']:,}{of}, batch {told['batch']:,}"


def speed_line(told: dict[str, Any]) -> str:
    if told.get("samples_per_s") is None:
        return UNKNOWN
    left = "time left unknown" if told.get("seconds_left") is None else f"{duration(told['seconds_left'])} left"
    wait = "" if told.get("loader_wait") is None else f", {100 * told['loader_wait']:.0f} % of it for the loader"
    return f"{number(told['samples_per_s'], 2)} samples/s, {left}{wait}"


def checkpoint_line(status: RunStatus) -> str:
    saved = status.checkpoint
    if saved is None:
        return "none"
    took = status.figures.get("save_s")
    took_text = "" if took is None else f", the last save took {took:.1f} s"
    damaged = "" if saved.whole else ", NOT WHOLE"
    return f"{saved.name}, {duration(saved.age_s)} old, {size(saved.bytes)}{took_text}{damaged}"


def number(value: float | None, digits: int = 0) -> str:
    return UNKNOWN if value is None else f"{value:,.{digits}f}"


def size(count: int | None) -> str:
    """Bytes as a person reads them."""
    if count is None:
        return UNKNOWN
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"


def duration(seconds: float) -> str:
    """A time as a person reads it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"
