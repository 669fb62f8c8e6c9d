"""How a run is: python recipes/status.py SAVE_FOLDER [--json] [--watch]."""

import sys

from theworld.commands.run_status import command

if __name__ == "__main__":
    sys.exit(command())
