"""Exactly once? python recipes/audit.py SAVE_FOLDER [MDS]."""

import sys

from theworld.commands.audit import command

if __name__ == "__main__":
    sys.exit(command())
