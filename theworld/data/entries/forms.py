"""What kind of file the conversations came in: told by its first bytes, unpacked where it is packed."""

from __future__ import annotations

import gzip
import zlib
from typing import BinaryIO

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
OTHER_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for; run git lfs pull where it was cloned"),
    (b"<", "a web page (HTML), not JSON: the server answered with a login or an error; fetch the file itself"),
    (b"\xff\xfe", "text in UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "text in UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8"),
    (b"PK\x03\x04", "a zip archive; unpack it and name the JSON in it"),
    (b"BZh", "packed with bzip2; unpack it: bunzip2"),
    (b"\xfd7zXZ", "packed with xz; unpack it: unxz"),
    (b"PAR1", "a Parquet file; expected JSON"),
)


def kind_fault(start: bytes) -> str | None:
    """Why a file that begins so cannot hold entries, and what to do; None if it may."""
    if b"\x00" in start[:4] and start[:1] in (b"[", b"{", b"\x00"):
        return "text in UTF-16 or UTF-32, not UTF-8; convert it with iconv"
    return next((fault for first, fault in OTHER_KINDS if start.lstrip().startswith(first)), None)


def open_plain(file: BinaryIO) -> BinaryIO:
    """The file's content, unpacked if it is gzip or zstd.

    Args:
        file: open at its first byte.
    """
    start = file.read(len(ZSTD))
    file.seek(0)
    if start.startswith(GZIP):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if start == ZSTD:
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)  # type: ignore[return-value]
    return file


def is_packing_fault(error: Exception) -> bool:
    """Whether the error says that a packed file is cut short or damaged."""
    return isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)) or type(error).__name__ == "ZstdError"
