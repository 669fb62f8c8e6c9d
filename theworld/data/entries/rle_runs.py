"""COCO's run-length masks, read here and not by pycocotools: its C code reads past the end of a text that is cut, and
makes an array of whatever size the data claim.

The compressed form is COCO's (maskApi.c, rleFrString): numbers to the base 32, least digit first, a digit a character
from "0" on, of which bit 5 says that another follows and bit 4 of the last is the sign; from the third on they are
differences to the number two before. Runs go down the columns, the first is background.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

DIGIT_BITS, MORE, SIGN = 5, 0x20, 0x10
LONGEST_RUN = 2**40


def read_runs(mask: Mapping[str, Any]) -> tuple[int, int, np.ndarray]:
    """A mask's height and width, and (n,) int64 where each of its runs ends, in pixels down the columns.

    Args:
        mask: ``{"size": [height, width], "counts": str or list of int}``, as it comes from the data.

    Raises:
        ValueError: sizes or runs are not what a mask has; TypeError, KeyError, IndexError, OverflowError: wrong types.
    """
    height, width = (int(side) for side in mask["size"])
    if not (0 < height < LONGEST_RUN and 0 < width < LONGEST_RUN):
        raise ValueError(f"{height} x {width}")
    counts = mask["counts"]
    runs = read_counts(counts) if isinstance(counts, str) else [int(count) for count in counts]
    ends = np.cumsum(np.asarray(runs, dtype=np.int64))
    if min(runs) < 0 or int(ends[-1]) != height * width:
        raise ValueError("the runs are not as long as the mask")
    return height, width, ends


def read_counts(text: str) -> list[int]:
    """The run lengths of COCO's compressed text."""
    counts: list[int] = []
    number, shift = 0, 0
    for character in text:
        digit = ord(character) - ord("0")
        if not 0 <= digit < 64 or shift > 8 * DIGIT_BITS:
            raise ValueError("no run lengths")
        number |= (digit & (MORE - 1)) << shift
        shift += DIGIT_BITS
        if digit & MORE:
            continue
        if digit & SIGN:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        if abs(counts[-1]) > LONGEST_RUN:
            raise ValueError("a run is too long")
        number, shift = 0, 0
    if shift:
        raise ValueError("the last number is cut")
    return counts


def mask_box(mask: Any) -> list[float] | None:
    """``[x1, y1, x2, y2]`` in pixels round a mask, the right and lower side beyond its last pixel; None if the mask is
    damaged or empty."""
    try:
        height, _, ends = read_runs(mask)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError):
        return None
    begins = np.concatenate([[0], ends[:-1]])[1::2]
    ends = ends[1::2]
    whole = ends > begins
    begins, last = begins[whole], ends[whole] - 1
    if not len(begins):
        return None
    left, right = int(begins[0] // height), int(last[-1] // height)
    over_columns = begins // height != last // height  # such a run has a column's last row and the next one's first
    top = 0 if over_columns.any() else int((begins % height).min())
    bottom = height - 1 if over_columns.any() else int((last % height).max())
    return [float(left), float(top), float(right + 1), float(bottom + 1)]
