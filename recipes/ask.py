"""Ask a model about a picture: python recipes/ask.py RUN_OR_REPO IMAGE ["question"]."""

import sys

from theworld.commands.ask import command

if __name__ == "__main__":
    sys.exit(command())
