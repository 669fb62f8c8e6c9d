"""The mean of several checkpoints as a model: python recipes/average.py CHECKPOINT CHECKPOINT ... --out OUT."""

import sys

from theworld.commands.average import command

if __name__ == "__main__":
    sys.exit(command())
