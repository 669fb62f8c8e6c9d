"""The mean of several checkpoints as a model: python recipes/average.py CHECKPOINT CHECKPOINT ... --out OUT

CHECKPOINT is a file, or a sharded folder, in a run's save_folder; several runs will do if they have trained the same
weights on the same base models. OUT is a folder as recipes/export.py writes it, with configuration and processor of the
first one's run. Sums are made in float64. Where a run has kept a moving average (EMA), that is what is taken.
Exit code 0: written, 2: bad input.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from theworld import cli
from theworld.errors import EXIT_DONE, UserError


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/average.py", __doc__)
    parser.add_argument("checkpoints", metavar="CHECKPOINT", type=Path, nargs="+", help="two or more")
    parser.add_argument("--out", metavar="OUT", type=Path, required=True, help="the folder to make")
    parser.add_argument("--merge", action="store_true", help="write all weights, those of the base models too")
    given = parser.parse(argv)
    if len(given.checkpoints) < 2:
        raise UserError("recipes/average.py: one checkpoint is its own mean; name two or more")
    for path in given.checkpoints:
        if not path.exists():
            raise UserError(f"{path}: no such checkpoint")
    from theworld.inference.mean_of_checkpoints import mean_of
    from theworld.inference.write_model import check_new, write_model

    check_new(given.out)
    first = given.checkpoints[0].absolute()
    source = f"the mean of {len(given.checkpoints)} checkpoints"
    write_model(first.parent, mean_of(given.checkpoints), source, given.out, given.merge, None)
    cli.say(str(given.out))
    return EXIT_DONE


command = partial(cli.run, main)
