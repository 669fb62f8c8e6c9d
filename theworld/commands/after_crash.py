"""Start a crashed run again? python recipes/after_crash.py EXIT_CODE YAML [key=value ...]

For job scripts: records the crash in SAVE_FOLDER/failures.jsonl and prints one line. Exit code 0: start again,
1: the same step has failed three times, 2: bad input.
"""

from functools import partial
from pathlib import Path

from theworld import cli
from theworld.cli import say
from theworld.config.load import load_config
from theworld.errors import UserError
from theworld.train.failures import judge


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/after_crash.py", __doc__)
    parser.add_argument("exit_code", metavar="EXIT_CODE", type=int, help="that the run left with")
    parser.add_argument("settings", metavar="YAML|key=value", nargs="*", help="those of the run")
    options = parser.parse(argv)
    config = load_config(options.settings)
    if config.save_folder is None:
        raise UserError("save_folder: not set; checkpoints and the ledger need a folder")
    verdict = judge(Path(config.save_folder), options.exit_code)
    say(verdict.line)
    return 0 if verdict.again else 1


command = partial(cli.run, main)
