"""Composer's checkpoint state as JSON and tensors, and back, without a pickle.

Plain values stand as they are; what JSON does not have is an object with the key ``~``. Whatever has no such form is
an error at the time of writing: nothing is guessed, and reading can only ever make the types that are listed here.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor

MARK = "~"
NUMBERS = "biufc?"
"""Kinds of numpy dtypes that are read: numbers and truth values, never objects."""


class NotPlain(TypeError):
    """A value that has no form without a pickle."""


def encode(value: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """``value`` as what ``json`` can write; tensors go to ``tensors`` under names of their own.

    Raises:
        NotPlain: names the place of a value that has no safe form.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return plain(value)
    if isinstance(value, Tensor):
        name = f"t{len(tensors):06}"
        tensors[name] = value.detach().cpu().contiguous()
        return {MARK: "tensor", "v": name}
    if isinstance(value, np.ndarray) and value.dtype.kind in NUMBERS:
        content = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {MARK: "ndarray", "dtype": value.dtype.str, "shape": list(value.shape), "v": content}
    if isinstance(value, np.generic):
        return encode(value.item(), tensors, path)
    if isinstance(value, timedelta):
        return {MARK: "timedelta", "v": [value.days, value.seconds, value.microseconds]}
    if isinstance(value, bytes):
        return {MARK: "bytes", "v": base64.b64encode(value).decode()}
    if isinstance(value, (list, tuple)):
        items = [encode(item, tensors, f"{path}/{place}") for place, item in enumerate(value)]
        return items if isinstance(value, list) else {MARK: "tuple", "v": items}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and MARK not in value:
            return {str(key): encode(item, tensors, f"{path}/{key}") for key, item in value.items()}
        pairs = [[encode(key, tensors, path), encode(item, tensors, f"{path}/{key}")] for key, item in value.items()]
        return {MARK: "dict", "v": pairs}
    raise NotPlain(f"{path or '/'}: a {type(value).__name__} cannot be stored without a pickle")


def plain(value: Any) -> Any:
    """The value without a subclass of its own, such as torch's version string."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return None


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What :func:`encode` was given.

    Raises:
        ValueError, KeyError, TypeError: it is of another form.
    """
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(MARK)
    if kind is None:
        return {key: decode(item, tensors) for key, item in value.items()}
    content = value["v"]
    if kind == "tensor":
        return tensors[content]
    if kind == "ndarray":
        dtype = np.dtype(value["dtype"])
        if dtype.kind not in NUMBERS:
            raise ValueError(f"an array of {dtype}, expected numbers")
        return np.frombuffer(base64.b64decode(content), dtype).reshape(value["shape"]).copy()
    if kind == "timedelta":
        return timedelta(*(int(part) for part in content))
    if kind == "bytes":
        return base64.b64decode(content)
    if kind == "tuple":
        return tuple(decode(item, tensors) for item in content)
    if kind == "dict":
        return {decode(key, tensors): decode(item, tensors) for key, item in content}
    raise ValueError(f"unknown kind of value: {kind!r}")


def same(left: Any, right: Any) -> bool:
    """Whether two states are equal, types and tensors included."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and type(left) is type(right):
        return len(left) == len(right) and all(same(*pair) for pair in zip(left, right, strict=True))
    return type(plain(left)) is type(plain(right)) and left == right
