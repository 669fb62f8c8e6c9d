"""Train TheWorld, or go on where a run was stopped.

    composer [-n RANKS] recipes/train.py YAML [key=value ...]

Exit code 0: done, 2: bad input or configuration, 85: stopped on a signal, saved, wants to be started again.
"""

import os
import sys

from theworld import cli
from theworld.config.load import load_config
from theworld.model.check_model import check_model_config
from theworld.signals import StopRequest
from theworld.train.check_training import check_training


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    stop = StopRequest()
    stop.install()
    try:
        return prepare_and_train(argv, stop)
    finally:
        stop.ignore()


def prepare_and_train(argv: list[str], stop: StopRequest) -> int:
    config = load_config(argv)
    stop.add(config.preemption.signals)
    # What the configuration alone can tell is said before torch is imported.
    check_training(config, cli.world_size())
    check_model_config(config.model)
    # Importing composer starts torch's pool of compilers, up to 32 processes a rank, and nothing here is compiled.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    # Checkpoints go to the Hub over plain HTTP, whose time limits and faults the uploads know how to deal with.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    with stop.held_back():
        from theworld.train.run import train

    return train(config, stop)


if __name__ == "__main__":
    sys.exit(cli.run(main))
