"""Entries of the conversations file, one at a time, whatever its size and form.

A JSON array, JSON lines, objects one behind the other, an array under a key of an object: one parser (the standard
library's) reads them all, over a window of text that grows with the entry, so that an entry gets the same verdict in
each form. An item that cannot be parsed is skipped, up to the next entry that can.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from theworld.data.entries.check_entry import Unreadable
from theworld.data.entries.forms import is_packing_fault, kind_fault, open_plain
from theworld.errors import UserError, describe

CHUNK = 1 << 18
LARGEST_ENTRY = 1 << 28
ENTRY_KEYS = frozenset(("filename", "conversations", "bbox", "rle", "messages", "caption"))
"""By these an entry is told from the objects inside one and from an object around the list."""
OWN_KEYS = ENTRY_KEYS | {"image", "images", "image_info"}
"""The same of an object that may be around the list; objects inside of entries may have these too."""
LONGEST_NUMBER = 400
"""Digits of a whole number; no float holds more."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
WHITE_SPACE = " \t\r\n"
OBJECT_START = re.compile(r'\{\s*"')
FILENAME = re.compile(r'"filename"\s*:\s*"([^"\\]*)"')
LITERAL = 16
"""Characters before the window's end in which an error may come from a literal that continues after it."""
NESTED = 900
"""Levels that an object has for certain which Python's parser finds nested too deeply."""


class BrokenJson(UserError):
    """The file is not JSON at ``offset`` (bytes of its content); the entries that can be read were given before."""

    def __init__(self, path: Path, offset: int, problem: str) -> None:
        self.offset = offset
        super().__init__(
            f"{path}: {problem} at byte {offset}; the entries that can be read are kept, fetch the file again and rerun"
        )


def read_entries(path: Path, progress: Callable[[int], None] | None = None) -> Iterator[Any]:
    """Every item of ``path`` in file order, as parsed: whole numbers are int, others float.

    Args:
        path: a JSON array (on one line or pretty-printed), JSON lines, objects one behind the other, or an object that
            holds the array under a key; in UTF-8; plain, gzip or zstd.
        progress: called now and then with the number of bytes read so far, of the file as it lies there.

    Yields:
        Items; an :class:`Unreadable` for each that is not JSON or is nested too deeply.

    Raises:
        OSError: the file cannot be read.
        UserError: it is something else than JSON; the line says what, and what to do.
        BrokenJson: it is cut short, or not JSON at some place; raised after the last entry.
    """
    with open(path, "rb") as file:
        yield from Reader(path, file, progress).items()


def parse_whole_number(digits: str) -> int | float:
    """An int, or infinity, which no check lets pass, for a number that no float holds."""
    return int(digits) if len(digits) <= LONGEST_NUMBER else float("inf")


class Reader:
    """Parses items out of a window of text that moves over the file.

    Args:
        path: to name in messages.
        file: open at its first byte.
        progress: see :func:`read_entries`.
    """

    def __init__(self, path: Path, file: BinaryIO, progress: Callable[[int], None] | None) -> None:
        self.path, self.file, self.progress = path, file, progress
        self.plain = open_plain(file)
        # Bytes that are not UTF-8 become lone surrogates, so that only the entries they are in are rejected.
        self.decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.parser = json.JSONDecoder(parse_int=parse_whole_number)
        self.window = ""
        self.place = 0
        self.offset = 0
        """Bytes of the content before the window."""
        self.ended = False
        self.damage: BrokenJson | None = None

    def items(self) -> Iterator[Any]:
        """See :func:`read_entries`."""
        self._start()
        first = self._next_character()
        if first == "{" and not self._enter_wrapped_list():
            yield from self._objects_in_a_row()
        elif self._next_character() == "[":
            while self._next_character() == "[":
                self.place += 1
                if self._next_character() == "[":
                    raise UserError(f"{self.path}: a list of lists; expected one list of entries: jq add")
                yield from self._list_items()
            if first == "[" and self._next_character() and self.damage is None:
                self._note_damage(self.place, "text behind the list")
        else:
            found = f"found {self.window[self.place : self.place + 8]!r}" if first else "the file ends"
            self._note_damage(self.place, f"expected [ or {{ but {found}")
        if self.damage is not None:
            raise self.damage

    # ---- the window

    def _start(self) -> None:
        try:
            start = self.plain.read(CHUNK)
        except Exception as error:
            if not is_packing_fault(error):
                raise
            raise UserError(f"{self.path}: cannot be unpacked: {describe(error)}; fetch it again") from error
        fault = kind_fault(start)
        if fault is not None:
            raise UserError(f"{self.path}: {fault}")
        if start.startswith(BYTE_ORDER_MARK):
            self.offset = len(BYTE_ORDER_MARK)
        self.window = self.decoder.decode(start[self.offset :])

    def _read_more(self) -> bool:
        """Drop what is done with and add the next bytes, as many as the window holds at the least.

        Returns:
            False at the file's end. ``place`` has moved with the text.
        """
        if self.ended:
            return False
        self.offset += self._count_bytes(self.place)
        self.window, self.place = self.window[self.place :], 0
        data = b""
        try:
            data = self.plain.read(max(CHUNK, len(self.window)))
        except Exception as error:
            if not is_packing_fault(error):
                raise
        self.ended = not data
        self.window += self.decoder.decode(data, final=self.ended)
        if self.progress is not None:
            self.progress(self.file.tell())
        return True

    def _count_bytes(self, end: int) -> int:
        return len(self.window[:end].encode("utf-8", "surrogateescape"))

    def _next_character(self, skipped: str = WHITE_SPACE) -> str:
        """The next character that is none of ``skipped``, left where it is; "" at the file's end."""
        while True:
            for place in range(self.place, len(self.window)):
                if self.window[place] not in skipped:
                    self.place = place
                    return self.window[place]
            self.place = len(self.window)
            if not self._read_more():
                return ""

    def _note_damage(self, place: int, problem: str) -> None:
        """Remember the first place at which the file is not JSON."""
        if self.damage is None:
            self.damage = BrokenJson(self.path, self.offset + self._count_bytes(place), problem)

    # ---- the forms

    def _enter_wrapped_list(self) -> bool:
        """Go to the list of entries under a key of the object that the window begins with, if it is such an object."""
        place = self.place + 1
        try:
            while True:
                key, place = self.parser.raw_decode(self.window, self._behind_space(place))
                place = self._behind_space(place)
                if key in OWN_KEYS or self.window[place] != ":":
                    return False
                place = self._behind_space(place + 1)
                if self.window[place] == "[" and self._names_an_entry(place):
                    self.place = place
                    return True
                _, place = self.parser.raw_decode(self.window, place)
                place = self._behind_space(place)
                if self.window[place] != ",":
                    return False
                place += 1
        except (ValueError, IndexError, TypeError, RecursionError):
            return False

    def _names_an_entry(self, place: int) -> bool:
        """Whether the list at a place in the window begins with an object, and an entry's key follows."""
        begins = self.window[self._behind_space(place + 1)] == "{"
        return begins and any(f'"{key}"' in self.window[place:] for key in ENTRY_KEYS)

    def _behind_space(self, place: int) -> int:
        while self.window[place] in WHITE_SPACE:
            place += 1
        return place

    def _list_items(self) -> Iterator[Any]:
        while character := self._next_character(WHITE_SPACE + ","):
            if character == "]":
                self.place += 1
                return
            yield from self._item()
        self._note_damage(self.place, "cut short: the file ends inside an entry or the list")

    def _objects_in_a_row(self) -> Iterator[Any]:
        while self._next_character(WHITE_SPACE + ","):
            yield from self._item()

    # ---- one item

    def _item(self) -> Iterator[Any]:
        """The item that begins at ``place``, behind which it moves; nothing if the file ends inside it."""
        while True:
            try:
                value, end = self.parser.raw_decode(self.window, self.place)
            except RecursionError:
                yield from self._skip("entry is nested too deeply", "")
                return
            except json.JSONDecodeError as error:
                if self._may_go_on(error) and self._read_more():
                    continue
                yield from self._skip("entry is not JSON", error.msg, error)
                return
            # A number at the window's end may continue after it.
            if end == len(self.window) and isinstance(value, (int, float)) and self._read_more():
                continue
            self.place = end
            yield value
            return

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Whether the error may only say that the window ends."""
        if len(self.window) - self.place > LARGEST_ENTRY:
            return False
        return error.msg.startswith("Unterminated string") or len(self.window) - error.pos < LITERAL

    def _skip(self, reason: str, detail: str, error: json.JSONDecodeError | None = None) -> Iterator[Unreadable]:
        """Go to the next object that is an entry; what lies before it counts as one item."""
        begin = self.offset + self._count_bytes(self.place)
        fault = None if error is None else self.offset + self._count_bytes(error.pos)
        ends_here = error is not None and self._may_go_on(error)
        found, length = self._length_of_damage()
        name = FILENAME.search(self.window, self.place, self.place + length)
        self.place += length
        if ends_here and not found:
            self._note_damage(self.place, "cut short: the file ends inside an entry or the list")
            return
        if error is not None and self.damage is None:
            self.damage = BrokenJson(self.path, fault or 0, error.msg)
        where = f"at byte {begin if fault is None else fault}"
        yield Unreadable(name[1] if name else "", reason, f"{detail} {where}".strip())

    def _length_of_damage(self) -> tuple[bool, int]:
        """Whether another entry follows, and the characters from ``place`` to it, or to the end."""
        ahead = 1
        while True:
            match = OBJECT_START.search(self.window, self.place + ahead)
            if match is not None:
                ahead = match.start() - self.place
                step = self._tried_ahead(ahead)
                if not step:
                    return True, ahead
                ahead += step
                continue
            ahead = max(ahead, len(self.window) - self.place - LITERAL)
            if len(self.window) - self.place > LARGEST_ENTRY or not self._read_more():
                return False, len(self.window) - self.place

    def _tried_ahead(self, ahead: int) -> int:
        """0 if an entry begins so many characters behind ``place``, else how far at least the next is from there."""
        while True:
            try:
                value, _ = self.parser.raw_decode(self.window, self.place + ahead)
            except RecursionError:
                return NESTED
            except json.JSONDecodeError as error:
                if self._may_go_on(error) and self._read_more():
                    continue
                return 1
            return 0 if isinstance(value, dict) and not ENTRY_KEYS.isdisjoint(value) else 1
