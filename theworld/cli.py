"""What every command line of this project shares: errors as one line, exit codes, log format."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from theworld.errors import EXIT_BAD_INPUT, UserError

INTERRUPTED = 130


def is_rank_zero() -> bool:
    """Whether this process is the one that speaks (``RANK`` is set by the composer launcher)."""
    return os.environ.get("RANK", "0") == "0"


def world_size() -> int:
    """Processes that train together (``WORLD_SIZE`` is set by the composer launcher)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def setup_logging() -> None:
    """Plain, dated log lines on stderr from rank 0; only warnings from other ranks."""
    logging.basicConfig(
        level=logging.INFO if is_rank_zero() else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        stream=sys.stderr,
    )
    # Says at every start which defaults it takes.
    logging.getLogger("streaming").setLevel(logging.WARNING)


def run(main: Callable[[list[str]], int], argv: list[str] | None = None) -> int:
    """Call ``main`` with the arguments and turn a :class:`UserError` into one line and exit code 2.

    Args:
        main: gets the arguments without the program's name, returns an exit code.
        argv: defaults to ``sys.argv[1:]``.
    """
    setup_logging()
    try:
        return main(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        if is_rank_zero():
            print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
