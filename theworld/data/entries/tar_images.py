"""Images inside of tars: found by the tars' headers, read where they lie, as if each tar were unpacked in its place."""

from __future__ import annotations

import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from theworld.data.entries.check_entry import IMAGE_SUFFIXES, id_key, image_id
from theworld.data.entries.images import ImageTable

TAR = ".tar"
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
INSIDE = re.compile(r"(?P<file>.+\.tar)//(?P<offset>\d+)//(?P<member>.+)", re.DOTALL)
"""How an :class:`ImageTable` has the path of such an image; a file's own path never has two slashes in a row."""


class Place(NamedTuple):
    """Where an image's bytes are.

    Attributes:
        file: path below the image folder.
        offset: in bytes; None: the image is the whole file.
        name: the image's own path, as if it were unpacked.
    """

    file: str
    offset: int | None
    name: str


def place_of(path: str) -> Place:
    """The place of an image by its path in the table."""
    found = INSIDE.fullmatch(path)
    if found is None:
        return Place(path, None, path)
    return Place(found["file"], int(found["offset"]), posixpath.join(posixpath.dirname(found["file"]), found["member"]))


def with_tars(folder: Path, table: ImageTable) -> ImageTable:
    """The table of an image folder, by path, with what is inside of its tars. A file that lies in the folder itself
    counts before one in a tar, and that before one in a tar whose path sorts behind.

    Args:
        folder: the image folder.
        table: of its files.
    """
    keys, sizes, mtimes, names, lengths = [], [], [], bytearray(), []
    unreadable: list[str] = []
    for tar in tars_of(folder, unreadable):
        relative = os.path.relpath(tar, folder)
        try:
            mtime = tar.stat().st_mtime_ns
            for member in members_of(tar):
                path = os.fsencode(f"{relative}//{member.offset_data}//{member.name.removeprefix('./')}")
                name = place_of(os.fsdecode(path)).name
                keys.append(id_key(image_id(name.encode("utf-8", "replace").decode())))
                sizes.append(member.size)
                mtimes.append(mtime)
                lengths.append(len(path))
                names += path
        except (OSError, tarfile.TarError) as error:
            unreadable.append(f"{relative}: {error}; what is behind is not there")
    if not keys and not unreadable:
        return table
    own_lengths = np.array(lengths, np.int64)
    merged = np.concatenate([table.keys, np.array(keys, np.uint64)])
    first = np.unique(merged, return_index=True)[1]
    starts = len(table.names) + np.cumsum(own_lengths) - own_lengths
    columns = {
        "keys": merged,
        "sizes": np.concatenate([table.sizes, np.array(sizes, np.int64)]),
        "mtimes": np.concatenate([table.mtimes, np.array(mtimes, np.int64)]),
        "starts": np.concatenate([table.starts, starts]),
        "lengths": np.concatenate([table.lengths, own_lengths]),
    }
    return ImageTable(
        **{name: column[first] for name, column in columns.items()},
        names=table.names + bytes(names),
        repeated=table.repeated + len(merged) - len(first),
        passed_over=table.passed_over,
        unreadable=sorted([*table.unreadable, *unreadable]),
    )


def tars_of(folder: Path, unreadable: list[str]) -> list[Path]:
    """The tars below a folder, by path; packed ones, which cannot be read at a place, are named."""
    found: list[Path] = []
    for directory, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(directory, name)
            if name.lower().endswith(PACKED) and not name.startswith("."):
                unreadable.append(f"{os.path.relpath(path, folder)}: a packed tar; unpack it: tar xf")
            elif name.endswith(TAR) and not name.startswith("."):
                found.append(path)
    return sorted(found)


def members_of(tar: Path) -> Iterator[tarfile.TarInfo]:
    """The images in a tar whose name does not lead out of its folder.

    Raises:
        OSError, tarfile.TarError: it cannot be read to its end.
    """
    with tarfile.open(tar, "r:") as archive:
        for member in archive:
            suffix = os.path.splitext(member.name)[1].lower()
            parts = member.name.split("/")
            led_out = member.name.startswith("/") or ".." in parts or "" in parts
            if member.isreg() and member.sparse is None and suffix in IMAGE_SUFFIXES and not led_out:
                yield member
            archive.members.clear()  # type: ignore[attr-defined] - else it keeps all headers
