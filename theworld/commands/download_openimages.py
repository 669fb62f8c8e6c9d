"""OpenImages' files for the wanted ids: python convert/download_openimages.py [YAML] [key=value ...]

The keys are in the section download; images go to convert.images, what the server does not have to missing.jsonl there.
Run it again after anything: it goes on at the cost of one look through the folder.

Leaves with 0 when everything that exists is there, 2 on bad input (a full disk included), 75 when it is not complete
and the same command should be run again (SIGTERM, network gone for long, failures), 130 after Ctrl-C.
"""

from __future__ import annotations

from functools import partial

from theworld import cli
from theworld.cli import say
from theworld.config.load import load_config
from theworld.download.start import download
from theworld.errors import EXIT_DONE, EXIT_RUN_AGAIN, UserError


def main(argv: list[str]) -> int:
    parser = cli.Parser("convert/download_openimages.py", __doc__, ["download", "convert"])
    report = download(load_config(parser.parse(argv).settings))
    say(report.table())
    if report.stopped == "SIGINT":
        return cli.INTERRUPTED
    if not report.complete:
        return EXIT_RUN_AGAIN
    if report.broken_json:
        raise UserError(report.broken_json)
    return EXIT_DONE


command = partial(cli.run, main)
