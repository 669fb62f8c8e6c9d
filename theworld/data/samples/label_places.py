"""Where the regions' labels go: near their boxes, none over another, and none over a box that it would hide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Rectangle = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels, right and bottom exclusive."""

MOST_HIDDEN = 0.25
"""Share of a box that other regions' labels may hide, as long as there is another place for them."""
SPOTS_TRIED = 64
"""Nearest free places of the grid that are looked at for one that hides nothing."""


def overlaps(spots: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, m) pixels that each of n rectangles (n, 4) shares with each of m others (m, 4)."""
    left, top, right, bottom = spots.T[:, :, None]
    other_left, other_top, other_right, other_bottom = others.T[:, None, :]
    width = np.minimum(right, other_right) - np.maximum(left, other_left)
    height = np.minimum(bottom, other_bottom) - np.maximum(top, other_top)
    return np.maximum(width, 0) * np.maximum(height, 0)


class LabelPlaces:
    """Places labels one after the other in a picture of W x H pixels; n boxes.

    Args:
        boxes: in pixels, inside the picture.
        width, height: of the picture.
    """

    def __init__(self, boxes: Sequence[Rectangle], width: int, height: int) -> None:
        self.boxes = np.array(boxes, np.int32).reshape(-1, 4)
        self.areas = (self.boxes[:, 2:] - self.boxes[:, :2]).prod(axis=1)
        self.hidden = np.zeros(len(self.boxes), np.int32)
        """(n,) pixels of each box under labels of other regions; labels never overlap, so these add up."""
        self.width, self.height = width, height
        self.placed = np.zeros((0, 4), np.int32)
        self.grids: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        """Size of a label to places all over the picture (k, 4), and (k,) bool whether each is free."""

    def place(self, number: int, size: tuple[int, int]) -> Rectangle | None:
        """The best place for the label of a box: free, near, and hiding no box if possible.

        Args:
            number: of the box.
            size: width and height of the label.

        Returns:
            None if no place is free.
        """
        if size[0] > self.width or size[1] > self.height:
            return None
        near = self.spots_at_corners(self.boxes[number], size)
        near = near[~overlaps(near, self.placed).any(axis=1)]
        chosen = self.first_that_hides_nothing(near, number)
        if chosen is None:
            far = self.free_spots(number, size)
            chosen = self.first_that_hides_nothing(far[:SPOTS_TRIED], number)
            if chosen is None:
                chosen = next(iter([*near[:1], *far[:1]]), None)
        if chosen is None:
            return None
        self.take(chosen, number)
        left, top, right, bottom = map(int, chosen)
        return left, top, right, bottom

    def first_that_hides_nothing(self, spots: np.ndarray, number: int) -> np.ndarray | None:
        """The first of the places (m, 4) that leaves enough to be seen of every other region's box."""
        if not len(spots):
            return None
        label = spots[0, 2:] - spots[0, :2]
        spare = MOST_HIDDEN * self.areas - self.hidden
        small = spare < label.prod()  # a label is not large enough to hide the others
        small[number] = False
        hidden = overlaps(spots, self.boxes[small])
        harmless = ((hidden == 0) | (hidden <= spare[small])).all(axis=1)
        return spots[np.argmax(harmless)] if harmless.any() else None

    def take(self, spot: np.ndarray, number: int) -> None:
        """Mark the place as taken by a label."""
        hidden = overlaps(spot[None], self.boxes)[0]
        hidden[number] = 0
        self.hidden += hidden
        self.placed = np.concatenate([self.placed, spot[None]])
        for spots, free in self.grids.values():
            free &= overlaps(spots, spot[None])[:, 0] == 0

    def spots_at_corners(self, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(8, 4) places above, in and below the box, at its left and right, moved into the picture."""
        left, top, right, bottom = box
        width, height = size
        corners = [(x, y) for y in (top - height, top, bottom, bottom - height) for x in (left, right - width)]
        spots = np.clip(np.array(corners, np.int32), 0, (self.width - width, self.height - height))
        return np.concatenate([spots, spots + size], axis=1)

    def free_spots(self, number: int, size: tuple[int, int]) -> np.ndarray:
        """(m, 4) the nearest free places to the box's corner on a grid over the whole picture, in that order."""
        if size not in self.grids:
            spots = self.grid(size)
            self.grids[size] = spots, ~overlaps(spots, self.placed).any(axis=1)
        spots, free = self.grids[size]
        spots = spots[free]
        distance = np.abs(spots[:, :2] - self.boxes[number, :2]).sum(axis=1)
        if len(spots) > SPOTS_TRIED:
            near = distance <= np.partition(distance, SPOTS_TRIED)[SPOTS_TRIED]
            spots, distance = spots[near], distance[near]
        return spots[np.argsort(distance, kind="stable")]

    def grid(self, size: tuple[int, int]) -> np.ndarray:
        """(k, 4) places for a label, half its size apart."""
        columns = np.arange(0, self.width - size[0] + 1, max(1, size[0] // 2))
        rows = np.arange(0, self.height - size[1] + 1, max(1, size[1] // 2))
        corners = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
        return np.concatenate([corners, corners + size], axis=1)
