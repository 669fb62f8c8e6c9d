"""Do picture and annotation belong together? The size that an annotation was made for, against the picture's own.

``rle.size`` says for which picture boxes were drawn. A smaller copy of that picture has boxes to be scaled; one that
its camera stored turned has to be turned as its EXIF says; anything else is another picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

SAME = "annotation is of this size"
SCALED = "boxes scaled to the picture"
TURNED = "picture turned as its EXIF says"
UNKNOWN = "annotation has no size"
OTHER = "annotation is of another picture size"

SHARES = (1.0, 1.0)
"""In place of a size: the boxes are shares of the picture's sides, of whatever picture. A size has whole numbers."""

ORIENTATION = 0x0112
"""EXIF's tag; 5 to 8 are quarter turns."""
QUARTER_TURNS = (5, 6, 7, 8)
BEYOND = 1.1
"""A box that reaches further than this, in picture sides, was drawn in another picture."""
OUTSIDE = "boxes reach far beyond the picture"
FRACTIONS = "boxes lie within 0..1, as shares of the picture and not pixels"


def annotation_size(raw: dict[str, Any]) -> list[int]:
    """``[height, width]`` in pixels that all masks of an entry agree on; ``[]`` if they do not or there are none."""
    masks = raw.get("rle")
    if not isinstance(masks, list) or not masks:
        return []
    sizes = [mask.get("size") if isinstance(mask, dict) else None for mask in masks]
    first = sizes[0]
    if not isinstance(first, list) or len(first) != 2 or any(size != first for size in sizes):
        return []
    return first if all(type(side) is int and side > 0 for side in first) else []


def are_shares(annotated: Sequence[float]) -> bool:
    """Whether it stands for shares and is no size."""
    return tuple(annotated) == SHARES and all(type(side) is float for side in annotated)


def same_ratio(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one size is the other, scaled: each side within a pixel of rounding."""
    width, height = one
    other_width, other_height = other
    return (
        abs(height * other_width / width - other_height) <= 1 or abs(width * other_height / height - other_width) <= 1
    )


def fit(annotated: Sequence[int] | None, picture: tuple[int, int], orientation: Callable[[], int]) -> str:
    """How an annotation goes with a picture: :data:`SAME`, :data:`SCALED`, :data:`TURNED`, :data:`UNKNOWN`, else
    :data:`OTHER`.

    Args:
        annotated: height and width that it was made for; empty or None if that is not known; :data:`SHARES` fit all.
        picture: width and height as stored.
        orientation: gives EXIF's; asked for only where it matters.
    """
    if not annotated:
        return UNKNOWN
    if are_shares(annotated):
        return SAME
    size = annotated[1], annotated[0]
    turned = picture[1], picture[0]
    if size == picture:
        return SAME
    if size == turned and orientation() in QUARTER_TURNS:
        return TURNED
    if same_ratio(size, picture):
        return SCALED
    return TURNED if same_ratio(size, turned) and orientation() in QUARTER_TURNS else OTHER


def orientation_of(data: bytes) -> int:
    """EXIF's orientation of an image file; 1, upright, where it says none."""
    from PIL import Image  # a tenth of the converter's start, and only needed here

    try:
        with Image.open(io.BytesIO(data)) as image:
            return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow's plugins raise many kinds for damaged data; the picture is judged elsewhere
        return 1


def odd_boxes(boxes: Sequence[Sequence[float]], picture: tuple[int, int]) -> str | None:
    """What speaks against boxes whose annotation has no size: :data:`OUTSIDE`, :data:`FRACTIONS`, or None."""
    values = [value for box in boxes for value in box]
    if not values:
        return None
    if all(0 <= value <= 1 for value in values):
        return FRACTIONS
    width, height = picture
    far = any(max(box[0], box[2]) > BEYOND * width or max(box[1], box[3]) > BEYOND * height for box in boxes)
    return OUTSIDE if far else None
