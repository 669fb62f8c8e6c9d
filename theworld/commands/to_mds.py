"""Raw files to MDS: python convert/to_mds.py [YAML] [--watch SECONDS] [--stage NAME] [key=value ...]

The keys are in the section convert; with --stage in that of one of the YAML's stages. With --watch it converts again
and again, SECONDS after each conversion, while the download runs; it ends when every entry has its image or the
download has finished.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from functools import partial

from theworld.cli import Parser, run, say
from theworld.config.load import load_config
from theworld.config.stage_configs import config_of_stage
from theworld.data.latents.column import latent_column
from theworld.data.shards.convert import convert
from theworld.download.watch import watch
from theworld.errors import EXIT_DONE, UserError
from theworld.own_code import add_code_paths

A_DAY = 86400.0


def main(argv: list[str]) -> int:
    parser = Parser("convert/to_mds.py", __doc__, ["convert"])
    parser.add_argument("--watch", metavar="SECONDS", type=pause, help="between two conversions")
    parser.add_argument("--stage", metavar="NAME", help="whose data to convert, where stages have their own")
    options = parser.parse(argv)
    config, seconds = load_config(options.settings), options.watch
    if options.stage is not None:
        config = config_of_stage(config, options.stage)
    add_code_paths(config.code_paths)
    for report in [convert(config.convert, latent_column(config))] if seconds is None else watch(config, seconds):
        if seconds is None or report.written:
            say(report.table())
        if report.broken:
            raise UserError(report.broken)
    return EXIT_DONE


def pause(text: str) -> float:
    """Seconds between two conversions."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= A_DAY:
        raise ArgumentTypeError(f"{text}: expected seconds between two conversions, for example --watch 60")
    return seconds


command = partial(run, main)
