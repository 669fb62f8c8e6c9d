"""What every command line of this project shares: one parser, errors as one line, exit codes, log format."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from theworld.errors import EXIT_BROKEN_PROMISE, UserError, describe
from theworld.plain_text import PlainFormatter, plain

INTERRUPTED = 130
CONSOLE = "theworld-"
"""How the names of an installation's commands begin."""
OF_LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


class Parser(argparse.ArgumentParser):
    """The parser of every command.

    Args:
        prog: the command as a user calls it from the checkout: ``convert/to_mds.py``. A console command such as
            ``theworld-convert`` goes by its own name.
        description: the module's docstring, shown as it stands but for that name.
        sections: keys at the top of the YAML that the command reads; ``--help`` lists what is below them. None: it
            reads no YAML. Empty: it reads all.
    """

    def __init__(self, prog: str, description: str | None, sections: Sequence[str] | None = None) -> None:
        called = Path(sys.argv[0]).name
        if called.startswith(CONSOLE):
            script = prog.removeprefix("composer ")
            description = re.sub(rf"(python|composer \[-n RANKS\]) {re.escape(script)}", called, description or "")
            prog = called
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


def rank() -> int:
    """This process's number among those that train together (``RANK`` is set by the composer launcher)."""
    return _number_of_ranks("RANK", 0, least=0)


def world_size() -> int:
    """Processes that train together (``WORLD_SIZE`` is set by the composer launcher)."""
    return _number_of_ranks("WORLD_SIZE", 1, least=1)


def _number_of_ranks(name: str, default: int, least: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise UserError(f"{name}: {text!r} in the environment is not a number of ranks; unset it, or use the launcher")
    return int(text)


def forget_ranks() -> None:
    """Commands that do not train run alone, whatever a job script or an earlier launcher has left in the shell.

    In a process that is one of ranks already, as when it is called from Python, the variables are no leftovers.
    """
    if ranks_have_met():
        return
    for name in OF_LAUNCHERS:
        os.environ.pop(name, None)


def ranks_have_met() -> bool:
    """Whether this process has joined others: before that all ranks run into the same."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def setup_logging(number: int = 0) -> None:
    """Plain, dated log lines on stderr from rank 0; only warnings from other ranks, with their number."""
    of_rank = f"rank {number}: " if number else ""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter(f"%(asctime)s %(levelname)s {of_rank}%(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=logging.WARNING if number else logging.INFO, handlers=[handler])
    # Says at every start which defaults it takes.
    logging.getLogger("streaming").setLevel(logging.WARNING)
    # Where it is installed peft imports it, and it misses a package of kernels for processors at every start.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def say(text: str) -> None:
    """Print what a command found: it may hold text of a server or of data."""
    print(plain(text), flush=True)


def say_error(text: str, number: int) -> None:
    """Print an error as its one line."""
    print(plain(f"error: rank {number}: {text}" if number else f"error: {text}"), file=sys.stderr, flush=True)


def run(main: Callable[[list[str]], int], argv: list[str] | None = None, in_ranks: bool = False) -> int:
    """Call ``main`` with the arguments and turn a :class:`UserError` into one line and its exit code: 2, or 75 for
    :class:`~theworld.errors.NotNow`.

    Args:
        main: gets the arguments without the program's name, returns an exit code.
        argv: defaults to ``sys.argv[1:]``.
        in_ranks: whether several processes may run it together.
    """
    if not in_ranks:
        forget_ranks()
    # Importing composer may import torch's compiler, which would start up to 32 processes at once instead of when
    # something is compiled.
    os.environ.setdefault("TORCH_WARM_POOL", "0")
    number = 0
    try:
        number = rank()
        setup_logging(number)
        return main(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        if number == 0 or (ranks_have_met() and not error.on_all_ranks):
            say_error(str(error), number)
        return error.exit_code
    except Exception as error:  # a fault of the code: where it is, and then the line
        print(plain(traceback.format_exc()), file=sys.stderr, end="")
        say_error(describe(error), number)
        return EXIT_BROKEN_PROMISE
    except SystemExit as shown:  # argparse's --help
        return int(shown.code or 0)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
