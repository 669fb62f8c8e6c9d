"""Train TheWorld, or go on where a run was stopped."""

import sys

from theworld.commands.train import command

if __name__ == "__main__":
    sys.exit(command())
