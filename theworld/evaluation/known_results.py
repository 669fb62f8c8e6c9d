"""What others published on the benchmark, kept apart from what is measured here."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from theworld.evaluation.score_table import in_columns


def known_results() -> dict[str, Any]:
    """The file of published results: ``about``, and ``results`` with model, percentages and source."""
    return json.loads(resources.files("theworld.evaluation").joinpath("known_results.json").read_text(encoding="utf-8"))


def show_known_results() -> str:
    """The published results as text, under a line that says what they are."""
    known = known_results()
    rows = [("published elsewhere", "qualitative", "quantitative", "source")]
    rows += [
        (one["model"], f"{one['qualitative']:.1f}", f"{one['quantitative']:.1f}", one["source"])
        for one in known["results"]
    ]
    return f"{known['about']}\n{in_columns(rows)}"
