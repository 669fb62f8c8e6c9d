"""Raw files to MDS: python convert/to_mds.py [YAML] [--watch SECONDS] [key=value ...]

The keys are in the section convert. With --watch it converts again and again, SECONDS after each conversion, while the
download runs; it ends when every entry has its image or the download has finished.
"""

from __future__ import annotations

import sys
from dataclasses import fields

from theworld.cli import run
from theworld.config.load import load_config
from theworld.config.schema import ConvertConfig
from theworld.data.latents.column import latent_column
from theworld.data.shards.convert import convert
from theworld.download.watch import watch
from theworld.errors import EXIT_DONE, UserError


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        print("Keys:", ", ".join(f"convert.{field.name}" for field in fields(ConvertConfig)))
        print("What each means: theworld/config/schema.py")
        return EXIT_DONE
    seconds, argv = split_watch(argv)
    config = load_config(argv)
    for report in [convert(config.convert, latent_column(config))] if seconds is None else watch(config, seconds):
        if seconds is None or report.written:
            print(report.table(), flush=True)
        if report.broken:
            raise UserError(report.broken)
    return EXIT_DONE


def split_watch(argv: list[str]) -> tuple[float | None, list[str]]:
    """The number after --watch, or None, and the other arguments.

    Raises:
        UserError: it is no number of seconds.
    """
    rest: list[str] = []
    seconds = None
    arguments = iter(argv)
    for argument in arguments:
        if argument.partition("=")[0] != "--watch":
            rest.append(argument)
            continue
        text = argument.partition("=")[2] or next(arguments, "")
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds <= 86400:
            raise UserError(f"--watch {text}: expected seconds between two conversions, for example --watch 60")
    return seconds, rest


if __name__ == "__main__":
    sys.exit(run(main))
