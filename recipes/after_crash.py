"""Start a crashed run again? python recipes/after_crash.py EXIT_CODE YAML [key=value ...]

For job scripts: records the crash in SAVE_FOLDER/failures.jsonl and prints one line. Exit code 0: start again,
1: the same step has failed three times, 2: bad input.
"""

import sys
from pathlib import Path

from theworld import cli
from theworld.config.load import load_config
from theworld.errors import UserError
from theworld.train.failures import judge


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    if not argv or not argv[0].isdigit():
        raise UserError("usage: python recipes/after_crash.py EXIT_CODE YAML [key=value ...]")
    config = load_config(argv[1:])
    if config.save_folder is None:
        raise UserError("save_folder: not set; checkpoints and the ledger need a folder")
    verdict = judge(Path(config.save_folder), int(argv[0]))
    print(verdict.line)
    return 0 if verdict.again else 1


if __name__ == "__main__":
    sys.exit(cli.run(main))
