"""What is left to fetch: one scan of the image folder against the wanted ids."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from theworld.data.entries.check_entry import id_key
from theworld.data.entries.choose_images import NO_RANK, folder_ranks
from theworld.data.entries.headers import JPEG_END, JPEG_START, BadImage, check_image
from theworld.data.entries.images import ImageTable, positions
from theworld.data.entries.scan import image_suffix, scan_images
from theworld.data.shards.dataset import DataSet
from theworld.data.shards.remote_data_set import RemoteDataSet, staging_folder
from theworld.download.download_settings import Settings
from theworld.download.state import State
from theworld.download.wanted import Wanted
from theworld.errors import UserError

CHECK_THREADS = 16
CHECK_BLOCK = 1024
LINE_EVERY = 60.0
QUICK_HEAD = 3

log = logging.getLogger(__name__)


@dataclass
class Plan:
    """What the scan found; n wanted images.

    Attributes:
        there: (n,) bool: a whole file, or, on the way to shards, a written sample.
        missing: (n,) bool: listed in missing.jsonl.
        replace: number of a wanted image to the path of its broken .jpg file.
        broken: files that are not whole.
        only_files: on the way to shards, images that are there as files and not written.
    """

    there: np.ndarray
    missing: np.ndarray
    replace: dict[int, str]
    broken: int
    only_files: int = 0

    def left(self, retry_missing: bool) -> np.ndarray:
        """(n,) bool: to be fetched."""
        return ~self.there if retry_missing else ~self.there & ~self.missing


def make_plan(settings: Settings, state: State, wanted: Wanted, stop: Callable[[], bool]) -> Plan:
    """Scan and compare.

    Args:
        settings: where to look.
        state: what is remembered of files.
        wanted: the ids.
        stop: whether to end early; asked while files are checked.

    Raises:
        KeyboardInterrupt: it said so.
        UserError: the folder, or the data set's manifest, cannot be read.
    """
    check_folders(settings)
    scan = scan_images(settings.images, settings.convert.image_folders, keep_unclear=True)
    rows, found = positions(scan.keys, wanted.keys)
    whole = state.whole_rows(scan)
    unknown = np.unique(rows[found][~whole[rows[found]]])
    if len(unknown):
        for block in check_rows(settings.images, scan, unknown):
            whole[block] = True
            remember(state, scan, block)
            if stop():
                raise KeyboardInterrupt
        state.save_whole(scan, whole)
    there = found.copy()
    there[found] = whole[rows[found]]
    bad = np.flatnonzero(found & ~there)
    replace = {int(number): scan.path(int(rows[number])) for number in bad}
    replace = {number: path for number, path in replace.items() if image_suffix(path) == ".jpg"}
    only_files = 0
    if settings.to == "mds":
        converted = positions(converted_keys(settings), wanted.keys)[1]
        only_files = int((there & ~converted).sum())
        there |= converted
    missing = positions(state.missing_keys(), wanted.keys)[1] & ~there
    return Plan(there, missing, replace, len(bad), only_files)


def check_folders(settings: Settings) -> None:
    """Images must be written where ``convert.image_folders`` has them found again."""
    named = settings.convert.image_folders
    folder = "" if settings.layout == "flat" else "00"
    if settings.to == "images" and named is not None and folder_ranks([folder], named)[0] == NO_RANK:
        raise UserError(
            f"convert.image_folders: {named} leaves out where the download goes; add {'??' if folder else '.'!r}, or "
            "set convert.images to one of them"
        )


def remember(state: State, scan: ImageTable, rows: np.ndarray) -> None:
    state.add_whole((int(scan.keys[row]), int(scan.sizes[row]), int(scan.mtimes[row])) for row in rows)


def check_rows(folder: Path, scan: ImageTable, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Read files that another program, or a run that was killed, has left.

    Args:
        folder: the image folder.
        scan: its files.
        rows: (m,) int64: of the scan, to be read.

    Yields:
        Rows that are whole, block by block, so that a kill costs little.
    """
    log.info("checking %s image files that are new here", f"{len(rows):,}")
    last = time.monotonic()
    with ThreadPoolExecutor(CHECK_THREADS, "check") as pool:
        for start in range(0, len(rows), CHECK_BLOCK):
            block = rows[start : start + CHECK_BLOCK]
            yield block[np.array(list(pool.map(lambda row: is_whole(folder / scan.path(int(row))), block)), bool)]
            if time.monotonic() - last > LINE_EVERY:
                log.info("checked %s of %s", f"{start + len(block):,}", f"{len(rows):,}")
                last = time.monotonic()


def is_whole(path: Path) -> bool:
    """Whether the file is an image to its end marker. Of most JPEG files only both ends are read."""
    try:
        with open(path, "rb") as file:
            if path.suffix.lower() in (".jpg", ".jpeg") and file.read(QUICK_HEAD) == JPEG_START + b"\xff":
                file.seek(-len(JPEG_END), 2)
                if file.read() == JPEG_END:
                    return True
            file.seek(0)
            check_image(file.read(), path.suffix.lower())
    except (OSError, BadImage):
        return False
    return True


def converted_keys(settings: Settings) -> np.ndarray:
    """(m,) uint64, sorted: keys of all ids in the data set of ``convert.out``, and of images that it rejected."""
    out = settings.convert.out
    remote = "://" in out
    root = staging_folder(out) if remote else Path(out)
    keys = []
    for part in ("", "-eval"):
        data_set = DataSet(root.with_name(f"{root.name}{part}"))
        if remote:
            RemoteDataSet(f"{out.rstrip('/')}{part}", data_set).pull()
        keys += [data_set.written_keys(), np.array([id_key(name) for name in data_set.rejected_images()], np.uint64)]
    return np.sort(np.concatenate(keys))
