"""Entries of the conversations file, one at a time, whatever its size.

A JSON array goes through ijson (its yajl2_c backend), JSON lines through the standard library.
The file's first character tells which of the two it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from theworld.errors import UserError

CHUNK = 1 << 16
LONGEST_LINE = 1 << 28
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
YAJL_ARROW = 40  # yajl prints the byte in error at this column, after at most
YAJL_BEFORE = 30  # so many bytes of what precedes it
_NEWLINES_AS_SPACES = bytes.maketrans(b"\r\n", b"  ")

logger = logging.getLogger(__name__)


class BrokenJson(UserError):
    """The file stops being JSON at ``offset`` (bytes from its start); entries before that are good."""

    def __init__(self, path: Path, offset: int, problem: str) -> None:
        self.offset = offset
        super().__init__(
            f"{path}: {problem} at byte {offset}; entries before it are kept, fetch the file again and rerun"
        )


def read_entries(path: Path, progress: Callable[[int], None] | None = None) -> Iterator[Any]:
    """Every entry of ``path`` in file order, as parsed: whole numbers are int, others float.

    Args:
        path: a JSON array (on one line or pretty-printed) or JSON lines, UTF-8.
        progress: called now and then with the number of bytes read so far.

    Raises:
        OSError: the file cannot be read.
        BrokenJson: it is cut short or not JSON; raised after the entries that precede the place.
    """
    with open(path, "rb") as file:
        start = skip_blank(file)
        first = file.read(1)
        file.seek(start)
        if first == b"[":
            yield from read_array(path, file, progress)
        elif first == b"{":
            yield from read_lines(path, file, progress)
        else:
            problem = "expected [ or { but the file ends" if not first else f"expected [ or {{ but found {first!r}"
            raise BrokenJson(path, start, problem)


def skip_blank(file: BinaryIO) -> int:
    """Offset of the first byte that is neither byte order mark nor white space."""
    offset = len(BYTE_ORDER_MARK) if file.read(3) == BYTE_ORDER_MARK else 0
    file.seek(offset)
    while chunk := file.read(CHUNK):
        rest = chunk.lstrip()
        offset += len(chunk) - len(rest)
        if rest:
            break
    file.seek(offset)
    return offset


class CountingReader:
    """A binary file that remembers its last chunk, to tell where in it a parser gave up."""

    def __init__(self, file: BinaryIO, progress: Callable[[int], None] | None) -> None:
        self.file = file
        self.progress = progress
        self.chunk = b""
        self.chunk_offset = self.end = file.tell()

    def read(self, size: int = -1) -> bytes:
        chunk = self.file.read(size)
        if chunk:
            self.chunk, self.chunk_offset = chunk, self.end
            self.end += len(chunk)
            if self.progress is not None:
                self.progress(self.end)
        return chunk


def array_parser() -> Any:
    """ijson with its C backend, or without it and with a warning."""
    try:
        return ijson.get_backend("yajl2_c")
    except ImportError:
        logger.warning("ijson has no C backend here: reading the JSON will be about ten times slower")
        return ijson


def read_array(path: Path, file: BinaryIO, progress: Callable[[int], None] | None) -> Iterator[Any]:
    reader = CountingReader(file, progress)
    try:
        yield from array_parser().items(reader, "item", use_float=True, buf_size=CHUNK)
    except ijson.JSONError as error:
        message = error.args[0] if error.args else b""
        text = message if isinstance(message, bytes) else str(message).encode("utf-8", "replace")
        problem = text.splitlines()[0].decode("utf-8", "replace") if text else "not JSON"
        if "premature EOF" in problem or "Incomplete" in problem:
            raise BrokenJson(path, reader.end, "cut short: the file ends inside an entry or the list") from error
        raise BrokenJson(path, reader.chunk_offset + place_in_chunk(text, reader.chunk), problem) from error


def place_in_chunk(message: bytes, chunk: bytes) -> int:
    """Where in ``chunk`` yajl stopped, from the excerpt in its message; the chunk's start if it shows none.

    yajl keeps the offset to itself, but shows the bytes around it with the failing one at a fixed column.
    """
    lines = message.split(b"\n")
    if len(lines) < 3 or b"^" not in lines[2]:
        return 0
    before, after = lines[1][YAJL_ARROW - YAJL_BEFORE : YAJL_ARROW], lines[1][YAJL_ARROW:]
    plain = chunk.translate(_NEWLINES_AS_SPACES)
    place = plain.find(before + after)
    if place >= 0:
        return place + YAJL_BEFORE
    for shown in range(YAJL_BEFORE, -1, -1):  # the chunk begins inside the excerpt
        if plain.startswith(before[YAJL_BEFORE - shown :] + after):
            return shown
    return 0


def read_lines(path: Path, file: BinaryIO, progress: Callable[[int], None] | None) -> Iterator[Any]:
    offset = file.tell()
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise BrokenJson(path, offset, f"a line of more than {LONGEST_LINE >> 20} MB; expected one entry a line")
        if line.strip():
            yield parse_line(path, offset, line)
        offset += len(line)
        if progress is not None:
            progress(offset)


def parse_line(path: Path, offset: int, line: bytes) -> Any:
    try:
        text = line.decode("utf-8")
        return json.loads(text, parse_constant=reject_constant)
    except UnicodeDecodeError as error:
        raise BrokenJson(path, offset + error.start, "bytes that are not UTF-8") from error
    except json.JSONDecodeError as error:
        if not line.endswith(b"\n"):
            raise BrokenJson(path, offset + len(line), "cut short: the last line ends inside an entry") from error
        place = offset + len(text[: error.pos].encode("utf-8"))
        raise BrokenJson(path, place, f"{error.msg} (expected one entry a line)") from error
    except ValueError as error:
        raise BrokenJson(path, offset, str(error)) from error


def reject_constant(name: str) -> float:
    raise ValueError(f"{name}, which is not JSON, in the line")
