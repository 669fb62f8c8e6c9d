"""What the catalog wants of an entry, whatever its form: an id, the image's name, and a record's line."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from theworld.data.entries.columns import Column

OPENSPATIAL = "openspatial"
BETWEEN = "\n"
"""Between the names of an entry's images; no name has one in it."""


class Parsed(NamedTuple):
    """A good entry.

    Attributes:
        id: the sample's.
        image: by which its file is found: its name, or its path below the image folder, without suffix; of several
            images these, with :data:`BETWEEN` between them; of text alone "".
        line: what the catalog keeps of it (:mod:`theworld.data.entries.columns`).
    """

    id: str
    image: str
    line: bytes


class EntryFormat(Protocol):
    """Reads entries of one form."""

    @property
    def name(self) -> str:
        """As in ``convert.format``."""
        ...

    @property
    def by_path(self) -> bool:
        """Whether entries name images by their path below the image folder. Else by their name alone: then the file
        may lie in any folder, an image has one entry, and its name is the sample's id."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """What a catalog of it is told by, beside the file: empty for what was there before there were formats."""
        ...

    def parse(self, raw: Any, columns: tuple[Column, ...], keep_masks: bool) -> Parsed:
        """A good entry.

        Args:
            raw: an item of the file.
            columns: of a record (:func:`~theworld.data.entries.columns.of_entry`).
            keep_masks: whether it must have masks.

        Raises:
            BadEntry: it cannot become a sample.
        """
        ...
