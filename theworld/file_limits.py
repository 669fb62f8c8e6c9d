"""How large a file may be by its kind, where it is read into memory whole and somebody else may have made it."""

from __future__ import annotations

from pathlib import Path

from theworld.disk_space import in_megabytes

MEGABYTE = 1 << 20
LIMITS = {
    ".json": 128 * MEGABYTE,
    ".jsonl": 1024 * MEGABYTE,
    ".model": 64 * MEGABYTE,
    ".jinja": MEGABYTE,
}
"""The largest there are: Gemma's tokenizer.json has 33 MB, its tokenizer.model 5; a ledger grows by 20 MB a pass over
OpenSpatialDataset on one GPU, and is read line by line. Weights are mapped and have no limit but the disk."""


def too_large(name: str, size: int) -> str | None:
    """What to say of a file that is larger than any of its kind; None if it is not.

    Args:
        name: its name or path; the ending tells the kind.
        size: in bytes.
    """
    limit = LIMITS.get(Path(name).suffix)
    if limit is None or size <= limit:
        return None
    return f"{name} has {in_megabytes(size)}, and no file of this kind has more than {in_megabytes(limit)}"
