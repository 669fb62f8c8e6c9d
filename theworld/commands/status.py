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
from theworld.own_code import add_code_paths


def main(argv: list[str]) -> int:
    parser = Parser("convert/status.py", __doc__, ["download", "convert"])
    config = load_config(parser.parse(argv).settings)
    add_code_paths(config.code_paths)
    say(status(config).table())
    return EXIT_DONE


command = partial(run, main)
