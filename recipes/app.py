"""Ask a model in the browser: python recipes/app.py RUN_OR_REPO."""

import sys

from theworld.commands.app import command

if __name__ == "__main__":
    sys.exit(command())
