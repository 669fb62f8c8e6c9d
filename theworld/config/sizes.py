"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

from theworld.errors import UserError

UNITS = {"": 1, "b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30, "tb": 2**40}


def parse_bytes(key: str, value: int | str) -> int:
    """Bytes of 67108864, "64mb" or "0.5gb"; the units are powers of 1024, as in Streaming.

    Raises:
        UserError: it is none; names the key.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(value).lower())
    if not match or match[2] not in UNITS:
        raise UserError(f"{key}: {value!r} is not a size; give bytes, or a size like 64mb or 200gb")
    return int(float(match[1]) * UNITS[match[2]])
