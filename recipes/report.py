"""A run on one page: python recipes/report.py SAVE_FOLDER."""

import sys

from theworld.commands.report import command

if __name__ == "__main__":
    sys.exit(command())
