"""Where the proof lies in a sharded checkpoint, read from its ``.metadata`` without running anything of it.

The file is a pickle. Every class and function that it names is replaced by one that keeps what it is given and does
nothing.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

LONGEST = 1 << 24
"""Bytes of a proof's entry: more is none."""


class Inert:
    """Stands for whatever a pickle names."""

    def __new__(cls, *arguments: Any, **settings: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Of an ordered dictionary: not needed here."""

    def append(self, item: Any) -> None:
        """Of a list with a class of its own: not needed here."""

    def get(self, key: str) -> Any:
        """A field of a dataclass; None if there is none."""
        return self.state.get(key) if isinstance(self.state, dict) else None


class InertUnpickler(pickle.Unpickler):
    """Reads the structure of a pickle and imports nothing."""

    def find_class(self, module: str, name: str) -> type[Inert]:
        return Inert


def read_entry(folder: Path, name: str) -> bytes | None:
    """The bytes of one value in a sharded checkpoint, as ``torch.save`` wrote them; None if it holds no such value.

    Raises:
        ValueError: the description is damaged, or leads elsewhere.
    """
    try:
        with (folder / ".metadata").open("rb") as file:
            places = InertUnpickler(file).load().get("storage_data")
        place = next((place for index, place in places.items() if index.get("fqn") == name), None)
        if place is None:
            return None
        part, offset, length = (place.get(key) for key in ("relative_path", "offset", "length"))
        if Path(part).name != part or not 0 < length <= LONGEST:
            raise ValueError("its description leads elsewhere")
        with (folder / part).open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except (pickle.UnpicklingError, AttributeError, TypeError, IndexError, KeyError, EOFError, RecursionError) as error:
        raise ValueError(f"its description is damaged: {error}") from error
