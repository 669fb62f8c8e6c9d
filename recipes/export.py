"""A run to a model's folder: python recipes/export.py RUN OUT."""

import sys

from theworld.commands.export import command

if __name__ == "__main__":
    sys.exit(command())
