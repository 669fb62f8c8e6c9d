"""A region's mask as an outline to draw: COCO run lengths -> a path of SVG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from theworld.data.entries.rle_runs import read_runs

GRID = 160
"""Cells along the longer side: enough for a line on a picture of some hundred pixels, and some kB a region."""


def outline(mask: Any) -> tuple[str, int, int] | None:
    """The outline of a mask.

    Args:
        mask: ``{"size": [height, width], "counts": str or list of int}``, as it comes from the data.

    Returns:
        The path, and the cells across and down that it is drawn in; None if the mask is damaged.
    """
    try:
        cells = sample_mask(mask)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError):
        return None
    return path_round(cells), cells.shape[1], cells.shape[0]


def sample_mask(mask: Mapping[str, Any]) -> np.ndarray:
    """The mask at the middles of a grid's cells: bool, (down, across).

    Raises:
        ValueError: sizes or runs are not what a mask has; other errors of wrong types.
    """
    height, width, ends = read_runs(mask)
    step = max(max(height, width) / GRID, 1.0)
    rows, columns = (middles(side, step) for side in (height, width))
    places = columns[None, :] * height + rows[:, None]
    return np.searchsorted(ends, places, side="right") % 2 == 1


def middles(side: int, step: float) -> np.ndarray:
    """The pixels in the middles of a side's cells."""
    cells = max(1, round(side / step))
    return ((np.arange(cells) + 0.5) * side / cells).astype(np.int64)


def path_round(cells: np.ndarray) -> str:
    """The edges between cells in and outside of a mask, as a path: a line for each straight piece."""
    padded = np.pad(cells, 1)
    across = [f"M{x} {y}h{length}" for y, x, length in pieces(padded[1:, 1:-1] != padded[:-1, 1:-1])]
    down = [f"M{x} {y}v{length}" for x, y, length in pieces((padded[1:-1, 1:] != padded[1:-1, :-1]).T)]
    return "".join([*across, *down])


def pieces(edges: np.ndarray) -> list[tuple[int, int, int]]:
    """Of each row the stretches that are True: row, begin, length."""
    changes = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    begins, ends = np.argwhere(changes == 1), np.argwhere(changes == -1)
    return [(int(row), int(begin), int(end - begin)) for (row, begin), (_, end) in zip(begins, ends, strict=True)]
