"""Train TheWorld, or go on where a run was stopped.

    composer [-n RANKS] recipes/train.py YAML [key=value ...]

Exit code 0: done, 2: bad input or configuration.
"""

import sys

from theworld import cli
from theworld.config.check import check_training
from theworld.config.load import load_config
from theworld.model.check import check_model_config


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    config = load_config(argv)
    # What the configuration alone can tell is said before torch is imported.
    check_training(config, cli.world_size())
    check_model_config(config.model)
    from theworld.train.run import train

    return train(config)


if __name__ == "__main__":
    sys.exit(cli.run(main))
