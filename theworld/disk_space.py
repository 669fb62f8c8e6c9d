"""A disk that is full: known behind a library's error, and told with what is needed and what is free."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from theworld.errors import RunFailed, UserError, causes
from theworld.files import nearest_folder

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system answers where a disk, a quota, or the size that a file may have is used up."""

HALF_WRITTEN = re.compile(r"inline_container.*unexpected pos|PytorchStreamWriter failed writing")
"""What torch says on other ranks than the one that got the system's answer."""


class CannotWrite(UserError):
    """A checkpoint could not be written now; what was there is untouched."""


class NeverFits(CannotWrite):
    """It could not even be written on the empty disk."""


def fault_of_disk(error: BaseException) -> OSError | None:
    """The operating system's refusal of a file behind an error, or None if that is not what has happened."""
    for one in causes(error):
        if isinstance(one, OSError) and one.errno is not None and not isinstance(one, (ConnectionError, TimeoutError)):
            return one
        if isinstance(one, RuntimeError) and HALF_WRITTEN.search(str(one)):
            return OSError(errno.EIO, "the write broke off")
    return None


def is_full(error: BaseException) -> bool:
    """Whether the disk was full, or a quota or a limit of the size of files was reached."""
    fault = fault_of_disk(error)
    return fault is not None and fault.errno in FULL


def in_megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def free_space(folder: Path) -> str:
    """What is free for this user where a folder is, or is to be, in words."""
    return f"{in_megabytes(shutil.disk_usage(nearest_folder(folder)).free)} are free"


@contextmanager
def full_disk_as_one_line(folder: Path) -> Iterator[None]:
    """Turn an error of a full disk into a line that says which file and what is free.

    Args:
        folder: of the run, where the error names no file.

    Raises:
        RunFailed: instead of it.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_full(error):
            raise
        fault = fault_of_disk(error)
        assert fault is not None
        where = Path(str(fault.filename)) if fault.filename else folder
        raise RunFailed(
            f"{where}: cannot be written ({fault.strerror}; {free_space(where.parent)}); free some space, then start "
            "the run again"
        ) from error
