"""Which files of an image folder count where there is a choice: by folder, then by kind of file.

A depth map or a mask has the name of its photo. Taken for a photo that has not arrived it would stay in the data set
for ever, so what looks like that is left out and said, unless the user names the folders to take from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from theworld.data.entries.check_entry import IMAGE_SUFFIXES
from theworld.data.entries.folder_kinds import odd_folders

KIND_OF = {".jpg": 0, ".jpeg": 0, ".png": 1, ".webp": 2}
"""The better the lower: photos are .jpg, and depth maps and masks are not, for they must not lose anything."""
KINDS = np.array([KIND_OF[suffix] for suffix in IMAGE_SUFFIXES])
NO_RANK = np.iinfo(np.int32).max

NO_PHOTOS = "like depth maps or masks, by their folder's name or by their one channel"
OTHER_KIND = "of another kind than the photos beside them"
SEVERAL = "of an id with several files that differ"
NOT_NAMED = "outside convert.image_folders"


@dataclass(frozen=True)
class Files:
    """All image files of a folder, n rows in any order.

    Attributes:
        keys: (n,) uint64, of their ids.
        sizes: (n,) int64, bytes.
        suffixes: (n,) int64, place in ``IMAGE_SUFFIXES``.
        folders: (n,) int64, place in ``folder_names``.
        folder_names: relative to the image folder; it is itself "".
        path: gives the path of a row.
        root: the image folder's own name.
        head: gives the first bytes of a row's file; None if it cannot be read.
    """

    keys: np.ndarray
    sizes: np.ndarray
    suffixes: np.ndarray
    folders: np.ndarray
    folder_names: Sequence[str]
    path: Callable[[int], str]
    root: str
    head: Callable[[int], bytes | None]


@dataclass(frozen=True)
class PassedOver:
    """Files that were not taken: why, how many, and one or two of them."""

    reason: str
    count: int
    example: str


def choose(
    files: Files, named: Sequence[str] | None, keep_unclear: bool, by_path: bool = False
) -> tuple[np.ndarray, list[PassedOver]]:
    """At most one file for each id.

    Args:
        files: what there is.
        named: patterns of the folders to take from, best first ("." is the image folder itself); None: all, without
            those that :func:`~theworld.data.entries.folder_kinds.odd_folders`, :func:`of_other_kind` and
            :func:`differing` find.
        keep_unclear: look into no file, and take one of several that differ as well.
        by_path: keys are of paths: whatever is asked for is named in full, and nothing is left out.

    Returns:
        (m,) int64 rows, sorted by key, and what was passed over. Of several files the one in the better folder
        counts, then the one whose suffix comes first in ``IMAGE_SUFFIXES``, then the one whose path sorts first, so
        that the order of a listing does not matter.
    """
    passed_over: list[PassedOver] = []
    taken = np.ones(len(files.keys), bool)

    def leave(rows: np.ndarray, reason: str, example: Callable[[int], str] = files.path) -> None:
        if rows.any():
            passed_over.append(PassedOver(reason, int(rows.sum()), example(int(np.flatnonzero(rows)[0]))))
        taken[rows] = False

    ranks = folder_ranks(files.folder_names, named)[files.folders]
    kinds = KINDS[files.suffixes]
    leave(ranks == NO_RANK, NOT_NAMED)
    if named is None and not by_path:
        if not keep_unclear:
            leave(odd_folders(files.folders, kinds, files.folder_names, files.root, files.head), NO_PHOTOS)
        leave(of_other_kind(files, taken), OTHER_KIND)
        if not keep_unclear:
            unclear = differing(files, taken)
            leave(
                unclear, SEVERAL, lambda row: " and ".join(sorted(map(files.path, rows_like(files, unclear, row)))[:2])
            )
    return first_of_each(files, np.flatnonzero(taken), ranks), passed_over


def folder_ranks(names: Sequence[str], named: Sequence[str] | None) -> np.ndarray:
    """(folders,) int32: place of the first pattern that a folder fits, NO_RANK if it fits none; 0 without patterns."""
    if named is None:
        return np.zeros(len(names), np.int32)
    fitting = (
        [n for n, pattern in enumerate(named) if fnmatchcase(name or ".", pattern.rstrip("/"))] for name in names
    )
    return np.array([min(places, default=NO_RANK) for places in fitting], np.int32)


def of_other_kind(files: Files, taken: np.ndarray) -> np.ndarray:
    """(n,) bool: files that are no photos by all that their names tell.

    Those in a folder without a file of the kind that the best folder has, and those of a kind that stands beside a
    better one in the same folder under the same id.

    Args:
        files: all files.
        taken: (n,) bool: which of them count.
    """
    rows = np.flatnonzero(taken)
    odd = np.zeros(len(taken), bool)
    if not len(rows):
        return odd
    keys, kinds, folders = files.keys[rows], KINDS[files.suffixes[rows]], files.folders[rows]
    best = np.full(len(files.folder_names), len(KIND_OF))
    np.minimum.at(best, folders, kinds)
    order = np.lexsort((kinds, folders, keys))
    after, before = order[1:], order[:-1]
    beside = (keys[after] == keys[before]) & (folders[after] == folders[before]) & (kinds[after] != kinds[before])
    groups = folders * len(KIND_OF) + kinds
    odd[rows] = (best[folders] > kinds.min()) | np.isin(groups, groups[after[beside]])
    return odd


def differing(files: Files, taken: np.ndarray) -> np.ndarray:
    """(n,) bool: files of ids that have some in several folders, of several sizes. Copies of one size are no question.

    Args:
        files: all files.
        taken: (n,) bool: which of them count.
    """
    rows = np.flatnonzero(taken)
    order = rows[np.argsort(files.keys[rows], kind="stable")]
    after, before = order[1:], order[:-1]
    same = files.keys[after] == files.keys[before]
    places = files.keys[after][same & (files.folders[after] != files.folders[before])]
    sizes = files.keys[after][same & (files.sizes[after] != files.sizes[before])]
    return taken & np.isin(files.keys, np.intersect1d(places, sizes))


def rows_like(files: Files, among: np.ndarray, row: int) -> list[int]:
    """Rows among some (n,) bool with the id of one."""
    return np.flatnonzero(among & (files.keys == files.keys[row])).tolist()


def first_of_each(files: Files, rows: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Of some rows the best for each id, sorted by key."""
    by_name = {name: place for place, name in enumerate(sorted(files.folder_names))}
    places = np.array([by_name[name] for name in files.folder_names], np.int64)[files.folders]
    rows = rows[np.lexsort((places[rows], files.suffixes[rows], ranks[rows], files.keys[rows]))]
    first = np.ones(len(rows), bool)
    first[1:] = files.keys[rows[1:]] != files.keys[rows[:-1]]
    best = rows[first]
    group = np.cumsum(first) - 1
    as_good = ~first & (files.folders[rows] == files.folders[best[group]])
    as_good &= files.suffixes[rows] == files.suffixes[best[group]]
    for row, number in zip(rows[as_good], group[as_good], strict=True):  # x.jpg and x.JPG
        best[number] = min(best[number], row, key=lambda one: files.path(int(one)))
    return best
