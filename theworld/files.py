"""Writing files so that a kill or a full disk leaves the old one or the new one, never a half."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from theworld.errors import UserError

TEMPORARY = ".tmp"


def sync_file(file: IO[Any]) -> None:
    """Flush to the disk itself."""
    file.flush()
    os.fsync(file.fileno())


def sync_path(path: Path) -> None:
    """Bring a file, or a folder's list of names, to the disk, so that it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_name(path: Path) -> Path:
    """A hidden name beside ``path`` that no other process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")


@contextmanager
def atomic_write(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path``, whole, when the block ends without an error.

    Args:
        path: its final name.
        sync: flush the content to the disk first; the new name only survives a power cut after
            :func:`sync_folder`. False where a file that is not whole after a power cut is made again.
    """
    temporary = temporary_name(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            if sync:
                sync_file(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes, sync: bool = True) -> None:
    """Replace ``path`` by this content, as :func:`atomic_write` does."""
    with atomic_write(path, sync) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by a text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any, indent: int | None = None, sync: bool = True) -> None:
    """Replace ``path`` by a JSON document."""
    write_bytes(path, json.dumps(value, indent=indent).encode(), sync)


def put_in_place(written: Path, final: Path) -> None:
    """Give a file or folder that was written aside its final name, when all of it is on the disk.

    A folder that has the name already goes first: until the rename there is then none of it, and never a half.
    """
    for member in [*(sorted(written.rglob("*")) if written.is_dir() else []), written]:
        sync_path(member)
    if final.is_dir() and not final.is_symlink():
        shutil.rmtree(final)
    os.replace(written, final)
    sync_path(final.parent)


def append_line(path: Path, line: Any) -> None:
    """Append one line of JSON and force it to disk; what a kill left of an earlier line is cut off first."""
    drop_partial_line(path)
    with path.open("ab") as file:
        file.write((json.dumps(line) + "\n").encode())
        sync_file(file)


def drop_partial_line(path: Path) -> None:
    """Cut off what a kill left of a line that was being written."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content_end = file.seek(0, os.SEEK_END)
        position = content_end
        while position > 0:
            file.seek(position - 1)
            if file.read(1) == b"\n":
                break
            position -= 1
        if position != content_end:
            file.truncate(position)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a JSON lines file; none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1] if line]


def last_json_line(path: Path) -> dict[str, Any] | None:
    """The last whole line of a JSON lines file, however long the file; None if there is none, or it is damaged."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        start, tail = file.seek(0, os.SEEK_END), b""
        while start > 0 and tail.count(b"\n") < 2:
            step = min(start, 1 << 16)
            start = file.seek(start - step)
            tail = file.read(step) + tail
    lines = tail.split(b"\n")[:-1]
    try:
        return json.loads(lines[-1]) if lines else None
    except ValueError:
        return None


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Replace ``path`` by one-dimensional arrays: a line of JSON that describes them, then their bytes.

    Not npz: that needs a second copy in memory, and its writer cannot report a full disk in one line.
    """
    columns = [[name, array.dtype.str, len(array)] for name, array in arrays.items()]
    with atomic_write(path) as file:
        file.write(json.dumps(columns).encode() + b"\n")
        for array in arrays.values():
            file.write(array.tobytes())


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What :func:`save_arrays` wrote."""
    with open(path, "rb") as file:
        columns = json.loads(file.readline())
        return {name: np.fromfile(file, dtype, length) for name, dtype, length in columns}


def nearest_folder(path: Path) -> Path:
    """What there is of a path: itself, or the innermost of the folders that it is to be in."""
    return next((one for one in (path, *path.absolute().parents) if one.exists()), path)


def own_temporary(name: str, parent: str | Path | None = None) -> Path:
    """A name of this user's own in a folder that others may write to; :func:`make_private` makes the folder.

    Args:
        name: of the folder, without the user.
        parent: where; None: the system's temporary folder (``$TMPDIR``).
    """
    return Path(parent or tempfile.gettempdir()) / f"{name}-{os.geteuid()}"


def make_private(folder: Path) -> None:
    """Make a folder that nobody else can read or write, in a place where others may have put one of that name.

    Raises:
        UserError: it is there and is a link, another user's, or one that everybody may write.
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        check_private(folder)
        folder.chmod(0o700)


def check_private(folder: Path) -> None:
    """See that a folder, if it is there, is this user's, and no link that another may have put there.

    Raises:
        UserError: it is not; says what to do.
    """
    try:
        facts = folder.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(facts.st_mode):
        fault = "is a link" if stat.S_ISLNK(facts.st_mode) else "is no folder"
    elif facts.st_uid != os.geteuid():
        fault = f"belongs to user {facts.st_uid}"
    elif facts.st_mode & stat.S_IWOTH:
        fault = "may be written by every user"
    else:
        return
    raise UserError(
        f"{folder}: {fault}, so what is in it is not to be trusted; remove it, or set TMPDIR to another folder"
    )


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed process left of :func:`atomic_write`. Only while no other process writes there."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def read_json(path: Path) -> Any | None:
    """Parsed content, or None if the file is not there or not whole."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
