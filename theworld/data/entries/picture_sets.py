"""Entries of several images, and of none, among tables that have a row for each image.

The catalog and the image folder meet in one key an entry. So the images of an entry count as one picture that is there
once all of them are: a row of its own, whose path names each file. An entry of text alone has a picture of no
bytes, which is always there. Whatever counts, plans and rejects images need not know of it.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from theworld.data.entries.check_entry import id_key
from theworld.data.entries.columns import BEFORE_IMAGE
from theworld.data.entries.formats.entry_format import BETWEEN
from theworld.data.entries.images import ImageTable, positions

TEXT_ALONE = id_key("")
"""The key of the picture of an entry that has none; no file has it."""
SET = "/"
"""With what the path of a set's row begins; what follows is JSON."""
Image = tuple[str, int, int]
"""An image file: path in the image folder, size in bytes, modification time in nanoseconds."""
COLUMNS = {"set_keys": "Q", "set_sizes": "I", "set_members": "Q"}


@dataclass
class PictureSets:
    """The sets that entries name, s rows; one that several entries name may be there several times.

    Attributes:
        set_keys: (s,) uint64, of the set.
        set_sizes: (s,) uint32, images in it.
        set_members: keys of the images, uint64, one set after the other.
        text_alone: whether some entry has no image.
    """

    set_keys: array = field(default_factory=lambda: array("Q"))
    set_sizes: array = field(default_factory=lambda: array("I"))
    set_members: array = field(default_factory=lambda: array("Q"))
    text_alone: bool = False

    def __len__(self) -> int:
        return len(self.set_keys)

    def add(self, name: str) -> None:
        """Take what an entry names (:class:`~theworld.data.entries.formats.entry_format.Parsed`)."""
        if not name:
            self.text_alone = True
        elif BETWEEN in name:
            members = [id_key(one) for one in name.split(BETWEEN)]
            self.set_keys.append(id_key(name))
            self.set_sizes.append(len(members))
            self.set_members.extend(members)

    def arrays(self) -> dict[str, np.ndarray]:
        """For the catalog's index; nothing where every entry has one image."""
        found = {name: np.array(getattr(self, name), np.dtype(kind)) for name, kind in COLUMNS.items()}
        return found if len(self) else {}

    @classmethod
    def of_index(cls, stored: Mapping[str, np.ndarray], images: np.ndarray) -> PictureSets:
        """What :meth:`arrays` gave, of an index with these images (n,) uint64 of its entries."""
        columns = {name: array(kind, stored[name].tobytes()) for name, kind in COLUMNS.items() if name in stored}
        return cls(**columns, text_alone=bool((images == np.uint64(TEXT_ALONE)).any()))

    def with_members(self, images: np.ndarray) -> np.ndarray:
        """Keys (n,) uint64 that entries name, and those of the images of the sets among them."""
        if not len(self):
            return images
        columns = self.arrays()
        wanted = np.repeat(np.isin(columns["set_keys"], images), columns["set_sizes"])
        return np.concatenate([images, columns["set_members"][wanted]])

    def only_files(self, images: np.ndarray) -> np.ndarray:
        """Keys (n,) uint64 that entries name, as those of files: of a set its images, of no image nothing."""
        columns = self.arrays()
        others = np.isin(images, columns.get("set_keys", images[:0])) | (images == np.uint64(TEXT_ALONE))
        return np.concatenate([images[~others], columns.get("set_members", images[:0])])

    def with_lost(self, missing: np.ndarray) -> np.ndarray:
        """Keys (n,) uint64 of images, sorted, and those of the sets that have one of them, sorted as well."""
        if not len(self) or not len(missing):
            return missing
        columns = self.arrays()
        lost = np.logical_or.reduceat(np.isin(columns["set_members"], missing), self._starts(columns))
        return np.unique(np.concatenate([missing, columns["set_keys"][lost]]))

    def rows_for(self, table: ImageTable, wanted: np.ndarray) -> ImageTable:
        """The table with a row for each set whose images are all there, and one for no image.

        Args:
            table: what is in the image folder.
            wanted: (n,) uint64, keys that entries name which are not written yet; other sets get no row.
        """
        keys, sizes, mtimes, paths = array("Q"), array("q"), array("q"), []
        if self.text_alone:
            keys.append(TEXT_ALONE)
            sizes.append(0)
            mtimes.append(0)
            paths.append(b"")
        if len(self):
            columns = self.arrays()
            starts = self._starts(columns)
            rows, there = positions(table.keys, columns["set_members"])
            whole = np.logical_and.reduceat(there, starts) & np.isin(columns["set_keys"], wanted)
            first = np.unique(columns["set_keys"], return_index=True)[1]
            for place in first[whole[first]].tolist():
                start = int(starts[place])
                members = rows[start : start + int(columns["set_sizes"][place])].tolist()
                images = [(table.path(row), int(table.sizes[row]), int(table.mtimes[row])) for row in members]
                keys.append(int(columns["set_keys"][place]))
                sizes.append(sum(size for _, size, _ in images) + (len(images) - 1) * BEFORE_IMAGE.size)
                mtimes.append(max(mtime for _, _, mtime in images))
                paths.append(path_of_set(images).encode())
        if not keys:
            return table
        return with_rows(table, keys, sizes, mtimes, paths)

    def _starts(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """(s,) int64: where each set's members begin."""
        sizes = columns["set_sizes"].astype(np.int64)
        return np.cumsum(sizes) - sizes


def with_rows(table: ImageTable, keys: array, sizes: array, mtimes: array, paths: list[bytes]) -> ImageTable:
    """The table with more rows, whose keys it does not have."""
    lengths = np.array([len(path) for path in paths], np.int64)
    merged = np.concatenate([table.keys, np.array(keys, np.uint64)])
    order = np.argsort(merged, kind="stable")
    starts = len(table.names) + np.cumsum(lengths) - lengths
    added = {
        "sizes": np.array(sizes, np.int64),
        "mtimes": np.array(mtimes, np.int64),
        "starts": starts,
        "lengths": lengths,
    }
    columns = {name: np.concatenate([getattr(table, name), column])[order] for name, column in added.items()}
    return replace(table, keys=merged[order], **columns, names=table.names + b"".join(paths))


def path_of_set(images: list[Image]) -> str:
    """The path of a set's row: no file's begins with a slash."""
    return SET + json.dumps(images)


def images_of_row(row: Image) -> list[Image]:
    """The image files that a row of a table stands for: one, those of its set, or none."""
    path, _, _ = row
    if not path:
        return []
    if not path.startswith(SET):
        return [row]
    return [(name, size, mtime) for name, size, mtime in json.loads(path.removeprefix(SET))]
