"""What every command line of this project shares: one parser, errors as one line, exit codes, log format."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from theworld.errors import UserError

INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """The parser of every command.

    Args:
        prog: the command as a user calls it, from the checkout: ``convert/to_mds.py``.
        description: the module's docstring; shown as it stands.
        sections: keys at the top of the YAML that the command reads; ``--help`` lists what is below them. None: it
            reads no YAML. Empty: it reads all.
    """

    def __init__(self, prog: str, description: str | None, sections: Sequence[str] | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.sections = sections
        if sections is not None:
            # Imported here and below: commands without a YAML start without the reader of YAMLs.
            from theworld.config.load import DEFAULT_YAML

            self.add_argument(
                "settings",
                metavar="YAML|key=value",
                nargs="*",
                help=f"the YAML (default {DEFAULT_YAML}), and keys that stand for those in it",
            )

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The arguments; options may stand between settings.

        Raises:
            UserError: an argument is unknown, missing or wrong.
        """
        return self.parse_intermixed_args(argv)

    def format_help(self) -> str:
        """The usual help, and what each key means."""
        if self.sections is not None:
            from theworld.config.describe import help_text

            self.epilog = help_text(self.sections)
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """One line instead of the usage."""
        raise UserError(f"{self.prog}: {message} (see --help)")


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
    """Call ``main`` with the arguments and turn a :class:`UserError` into one line and its exit code: 2, or 75 for
    :class:`~theworld.errors.NotNow`.

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
        return error.exit_code
    except SystemExit as shown:  # argparse's --help
        return int(shown.code or 0)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
