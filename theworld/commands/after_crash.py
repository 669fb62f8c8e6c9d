"""Start a crashed run again? python recipes/after_crash.py EXIT_CODE YAML [key=value ...]

For job scripts: records the crash in SAVE_FOLDER/failures.jsonl and prints one line. Exit code 0: start again, after so
many seconds as a second line says; 1: not again, the same step has failed three times, or any steps five times since
the last new checkpoint; 2: bad input.
"""

from functools import partial
from pathlib import Path

from theworld import cli
from theworld.cli import say
from theworld.config.load import load_config
from theworld.config.schema import Config
from theworld.config.stage_configs import stage_configs
from theworld.errors import UserError
from theworld.stage_folders import read_stages
from theworld.train.failures import FIRST_PAUSE, judge


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/after_crash.py", __doc__)
    parser.add_argument("exit_code", metavar="EXIT_CODE", type=int, help="that the run left with")
    parser.add_argument(
        "--pause",
        metavar="SECONDS",
        type=float,
        default=FIRST_PAUSE,
        help="before the first start after a crash; twice as long before each further one (default %(default)s)",
    )
    parser.add_argument("settings", metavar="YAML|key=value", nargs="*", help="those of the run")
    options = parser.parse(argv)
    config = load_config(options.settings)
    if config.save_folder is None:
        raise UserError("save_folder: not set; checkpoints and the ledger need a folder")
    verdict = judge(folder_at_work(config, Path(config.save_folder)), options.exit_code, options.pause)
    say(verdict.line)
    if not verdict.again:
        return 1
    say(str(verdict.pause))
    return 0


def folder_at_work(config: Config, save_folder: Path) -> Path:
    """The save folder of the start that has crashed: of a run in stages that of the first that is not finished."""
    names = [name for name, _ in stage_configs(config)]
    finished = {one.name for one in read_stages(save_folder) if one.checkpoint is not None}
    left = [name for name in names if name not in finished] or names[-1:]
    return save_folder / left[0] if left else save_folder


command = partial(cli.run, main)
