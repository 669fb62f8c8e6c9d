"""Several pictures as one, for people to look at; the model sees each by itself."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

GAP = 8
"""White pixels between two pictures."""


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """RGB pictures from left to right, as they are; one alone is itself."""
    if len(pictures) == 1:
        return pictures[0]
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    whole = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        whole.paste(picture, (left, 0))
        left += picture.width + GAP
    return whole
