"""Figures as SVG, which stand in the page itself and are readable on white and on black."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

GREY = "#808894"
BLUE = "#4a86e8"
COLOURS = {"good": "#2e9e5b", "warn": "#d98a1f", "bad": "#d6453d", "soft": GREY}

UNITS = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


@dataclass(frozen=True)
class Bar:
    """A stretch of time: begin and end in seconds, what it was, and one of :data:`COLOURS`."""

    begin: float
    end: float
    label: str
    kind: str


@dataclass(frozen=True)
class Dots:
    """One value with its interval for each row of a figure: ``(value, low, high)``; ``floor`` is drawn through all."""

    name: str
    values: Sequence[tuple[float, float, float]]
    floor: float


def line_figure(curves: Sequence[tuple[str, Sequence[tuple[int, float]]]], stops: Sequence[int], unit: str) -> str:
    """Curves over batches as SVG.

    Args:
        curves: name and points of each; those that are not finite leave a gap.
        stops: batches at which a start went on, dashed.
        unit: of the values.
    """
    figure, axes = new_figure(4.6, 2.3)
    for name, points in curves:
        batches = [batch for batch, _ in points]
        values = [value if math.isfinite(value) else math.nan for _, value in points]
        colour = {"color": BLUE} if len(curves) == 1 else {}
        axes.plot(batches, values, linewidth=1.2, label=name, marker="." if len(points) == 1 else None, **colour)
    for stop in stops:
        axes.axvline(stop, color=COLOURS["bad"], linestyle="--", linewidth=0.8)
    axes.set_xlabel("batch")
    axes.set_ylabel(unit)
    if len(curves) > 1:
        axes.legend(frameon=False, labelcolor=GREY, fontsize=8)
    return as_svg(figure)


def time_figure(bars: Sequence[Bar]) -> str:
    """Stretches of time below one another as SVG, from the beginning of the first."""
    figure, axes = new_figure(11.0, max(1.2, min(0.24 * len(bars) + 0.7, 12)))
    first = min(bar.begin for bar in bars)
    length = max(bar.end for bar in bars) - first
    unit, seconds = next((one for one in UNITS if length >= 3 * one[1]), UNITS[-1])
    for row, bar in enumerate(bars):
        # A start of seconds in a run of days is still to be seen.
        width = max(bar.end - bar.begin, length / 300, 1.0)
        axes.barh(row, width / seconds, left=(bar.begin - first) / seconds, color=COLOURS[bar.kind], height=0.7)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    return as_svg(figure)


def interval_figure(rows: Sequence[str], series: Sequence[Dots], unit: str) -> str:
    """Values with intervals as SVG, rows below one another, each series a little lower than the one before.

    Args:
        rows: names.
        series: a value for each row; their floors are dashed.
        unit: of the values.
    """
    figure, axes = new_figure(7.5, 0.34 * len(rows) + 0.9)
    for place, dots in enumerate(series):
        heights = [row + 0.22 * (place - (len(series) - 1) / 2) for row in range(len(rows))]
        middles = [value for value, _, _ in dots.values]
        spread = [[v - low for v, low, _ in dots.values], [high - v for v, _, high in dots.values]]
        colour = f"C{place}"
        axes.errorbar(
            middles, heights, xerr=spread, fmt="o", color=colour, markersize=3.5, linewidth=1.2, label=dots.name
        )
        axes.axvline(dots.floor, color=colour, linestyle="--", linewidth=0.8)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.legend(frameon=False, labelcolor=GREY, fontsize=8)
    return as_svg(figure)


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of so many inches with grey axes. Without pyplot, which keeps global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.25, color=GREY)
    axes.tick_params(colors=GREY, labelsize=8)
    axes.xaxis.label.set_color(GREY)
    axes.yaxis.label.set_color(GREY)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    axes.patch.set_alpha(0)
    return figure, axes


def as_svg(figure: Any) -> str:
    """The figure as an SVG element, its text as text."""
    from matplotlib import rc_context

    packed = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "theworld"}):
        figure.savefig(packed, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = packed.getvalue()
    return text[text.index("<svg") :]
