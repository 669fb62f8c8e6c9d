"""What do world tokens know? python recipes/probe.py [YAML] [key=value ...]."""

import sys

from theworld.commands.probe import command

if __name__ == "__main__":
    sys.exit(command())
