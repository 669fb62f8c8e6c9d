"""Folders of depth maps or masks, told from folders of photos by their name or by a look at some of their files.

Their files bear the photos' names, and where there is nothing else one would be taken for a photo for ever.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from theworld.data.entries.headers import JPEG_FRAMES, BadImage, image_type, jpeg_segments

NAMES = frozenset(
    ["depth", "depths", "depthmap", "depthmaps", "disparity", "disparities", "mask", "masks", "segmentation", "normals"]
)
"""Words of a folder's name that say what it holds."""
LOOKED_AT = 16
"""Files of a folder; a whole sample of ordinary grey pictures tells only if it has as many."""
MOST_FOLDERS = 1024
"""With more, folders with the same first part of the path are looked at as one, so that it stays seconds."""
HEAD = 1 << 17
"""Bytes of a file that are read: a JPEG's frame may come behind a colour profile and a thumbnail."""

PHOTO, GREY, NO_PHOTO = range(3)


def odd_folders(
    folders: np.ndarray, kinds: np.ndarray, names: Sequence[str], root: str, head: Callable[[int], bytes | None]
) -> np.ndarray:
    """Which files lie in folders that hold no photos.

    Args:
        folders: (n,) int64, each file's folder, a place in ``names``.
        kinds: (n,) int64, below 8: files of one folder and several kinds of file are looked at apart.
        names: of the folders, relative to the image folder.
        root: the image folder's own name.
        head: gives the first :data:`HEAD` bytes of a file; None if it cannot be read.

    Returns:
        (n,) bool.
    """
    if says_no_photos(root):
        return np.ones(len(folders), bool)
    named = np.array([any(map(says_no_photos, name.split("/"))) for name in names], bool)
    places = list(names)
    if len(places) > MOST_FOLDERS:
        places = [name.split("/")[0] for name in names]
    number = {place: count for count, place in enumerate(dict.fromkeys(places))}
    groups = np.array([number[place] for place in places], np.int64)[folders] * 8 + kinds
    odd = named[folders]
    rows = np.flatnonzero(~odd)
    rows = rows[np.argsort(groups[rows], kind="stable")]
    borders = np.flatnonzero(np.diff(groups[rows])) + 1
    for group in np.split(rows, borders):
        sample = group[np.linspace(0, len(group) - 1, min(len(group), LOOKED_AT)).astype(int)]
        if hold_no_photos(head(int(row)) for row in sample):
            odd[group] = True
    return odd


def says_no_photos(folder: str) -> bool:
    """Whether the name of one folder says that it holds depth maps or masks."""
    return not NAMES.isdisjoint(re.split(r"[^a-z]+", folder.lower()))


def hold_no_photos(heads: Iterable[bytes | None]) -> bool:
    """Whether a sample of files says that none of its like is a photo; stops reading at the first that is one."""
    found = []
    for head in heads:
        if head is None:
            continue
        found.append(channels(head))
        if found[-1] == PHOTO:
            return False
    sure = bool(found) and set(found) == {NO_PHOTO}
    return sure or len(found) == LOOKED_AT


def channels(head: bytes) -> int:
    """What a file's first bytes say.

    :data:`NO_PHOTO` for a PNG of one channel that is no grey of 8 bits: 16 bits are depths, a palette or fewer bits are
    classes. :data:`GREY` for one channel of 8 bits, which a photo may have, but not all. Else :data:`PHOTO`, damaged
    files among them.
    """
    kind = image_type(head)
    if kind == "PNG" and len(head) > 25:
        bits, colour = head[24], head[25]  # of IHDR; colour 0 is grey, 3 a palette
        if colour == 3 or (colour == 0 and bits != 8):
            return NO_PHOTO
        return GREY if colour == 0 else PHOTO
    if kind == "JPEG":
        try:
            for marker, start, _ in jpeg_segments(head):
                if marker in JPEG_FRAMES:
                    return GREY if head[start + 9] == 1 else PHOTO
        except (BadImage, IndexError, struct.error):  # the check of each picture says so
            return PHOTO
    return PHOTO
