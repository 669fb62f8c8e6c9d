"""Upload a run's newest checkpoint to the Hub: python recipes/push.py SAVE_FOLDER REPO [--public]."""

import sys

from theworld.commands.push import command

if __name__ == "__main__":
    sys.exit(command())
