"""Which images are there for samples that are not written yet: by the images' own keys, or over the entries."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress
from typing import Any

import numpy as np

from theworld.data.entries.catalog import Catalog
from theworld.data.entries.check_entry import id_key
from theworld.data.entries.images import ImageTable, positions
from theworld.data.entries.scan import files_to_look_at
from theworld.data.shards.shard_plan import NOTHING

Rejected = Mapping[str, Mapping[str, Any]]
"""Id to line of rejected.jsonl."""


def image_keys(rejected: Rejected) -> np.ndarray:
    """(n,) uint64: keys of the images of rejected lines."""
    return np.array([id_key(line.get("image", entry_id)) for entry_id, line in rejected.items()], np.uint64)


def known_bad(scan: ImageTable, rejected: Rejected) -> list[tuple[str, int]]:
    """Id and row of the samples whose image is still the file that was rejected."""
    rows, there = positions(scan.keys, image_keys(rejected))
    found = zip(compress(rejected.items(), there), rows[there].tolist(), strict=True)
    return [
        (entry_id, row)
        for (entry_id, line), row in found
        if int(scan.sizes[row]) == line["size"] and int(scan.mtimes[row]) == line["mtime_ns"]
    ]


def files_needed(keys: np.ndarray, catalog: Catalog | None, written: np.ndarray, rejected: Rejected) -> np.ndarray:
    """Which files may still become samples.

    Args:
        keys: (n,) uint64, of the files.
        catalog: None: nobody has read the JSON; so where it is not complete.
        written: (m,) uint64, sorted, of the samples.
        rejected: of the images; one that has been replaced is tried again.

    Returns:
        (n,) bool.
    """
    named = None if catalog is None else catalog.keys()
    if catalog is not None and catalog.form.by_path and named is not None:
        images = catalog.image_keys()
        assert images is not None
        written, named = NOTHING, catalog.sets().with_members(images[~positions(written, named)[1]])
    return files_to_look_at(keys, written, named, image_keys(rejected).tolist())


def with_picture_sets(scan: ImageTable, catalog: Catalog, written: np.ndarray) -> ImageTable:
    """What is in the image folder, with rows for entries of several images and of none.

    Args:
        scan: the files.
        catalog: a complete one.
        written: (m,) uint64, sorted, of the samples.
    """
    keys, images = catalog.keys(), catalog.image_keys()
    assert keys is not None
    assert images is not None
    return catalog.sets().rows_for(scan, images[~positions(written, keys)[1]])


def images_by_name(scan: ImageTable, done: np.ndarray, rejected: Rejected) -> np.ndarray:
    """(n,) bool: images, one a sample, that are not done and not known to be bad.

    Args:
        scan: what is in the image folder, n rows.
        done: (m,) uint64, sorted: written, or tried by this run.
        rejected: of the images.
    """
    wanted = ~positions(done, scan.keys)[1]
    wanted[[row for _, row in known_bad(scan, rejected)]] = False
    return wanted


def entries_left(catalog: Catalog, scan: ImageTable, done: np.ndarray, rejected: Rejected) -> tuple[np.ndarray, ...]:
    """The same where several samples may have one image.

    Args:
        catalog: a complete one.
        scan, done, rejected: as above.

    Returns:
        (n,) bool of the images that some entry needs, and (k,) uint64, sorted: keys of the entries that need nothing.
    """
    keys, images = catalog.keys(), catalog.image_keys()
    assert keys is not None
    assert images is not None
    bad = np.array([id_key(entry_id) for entry_id, _ in known_bad(scan, rejected)], np.uint64)
    skip = np.sort(np.concatenate([done, bad]))
    left = ~positions(skip, keys)[1]
    return np.isin(scan.keys, images[left]), skip
