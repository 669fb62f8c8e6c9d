"""The rows of a Parquet file, some at a time; needs the extra ``parquet``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from theworld.errors import UserError, first_line

AT_ONCE = 16


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows in order.

    Args:
        path: the file.
        columns: those to read; None: all.

    Raises:
        UserError: pyarrow is not installed, the file cannot be read to its end, or lacks a column.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: a Parquet file needs pyarrow: pip install 'theworld[parquet]'") from error
    try:
        with parquet.ParquetFile(path) as file:
            missing = sorted(set(columns or ()) - set(file.schema_arrow.names))
            if missing:
                raise UserError(f"{path}: has no column {missing[0]!r}; expected {', '.join(columns or ())}")
            for batch in file.iter_batches(AT_ONCE, columns=None if columns is None else list(columns)):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cut short or no Parquet file ({first_line(error)})") from error
