"""How far everything is: python convert/status.py [YAML] [key=value ...]

Images wanted, there, missing for good; generations and samples; JSON and disk; what the next runs would pick up.
Changes nothing and may be called at any time.
"""

from __future__ import annotations

from functools import partial

from theworld.cli import Parser, run, say
from theworld.config.load import load_config
from theworld.download.status import status
from theworld.errors import EXIT_DONE


def main(argv: list[str]) -> int:
    parser = Parser("convert/status.py", __doc__, ["download", "convert"])
    say(status(load_config(parser.parse(argv).settings)).table())
    return EXIT_DONE


command = partial(run, main)
