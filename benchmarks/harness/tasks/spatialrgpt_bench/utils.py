"""A row of the benchmark's parquet files -> picture with its boxes, question, verdict on an answer."""

from __future__ import annotations

from typing import Any

from PIL import Image

from theworld.data.samples.boxes import draw_regions
from theworld.data.samples.decode import to_rgb
from theworld.evaluation.score import score
from theworld.inference.benchmark_data import question_of, regions_of, with_boxes


def pictures(row: dict[str, Any]) -> list[Image.Image]:
    """The picture with its regions drawn and numbered as the question numbers them."""
    image, regions = row["image"], regions_of(row, question_of(row))
    if isinstance(image, Image.Image):
        return [draw_regions(to_rgb(image), regions)]
    return [with_boxes(image["bytes"], regions)]  # a parquet file that does not say that these are pictures


def reference(row: dict[str, Any]) -> str:
    """The true answer."""
    return question_of(row).reference


def verdict(row: dict[str, Any], results: list[str]) -> dict[str, float]:
    """What becomes of an answer: an undecided one is not right."""
    question = question_of(row)
    found = score(question, results[0])
    right = float(found.right is True)
    kind = "right_quantitative" if question.is_quantitative else "right_qualitative"
    return {"right": right, kind: right, "undecided": float(found.right is None)}
