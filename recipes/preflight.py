"""Will this run work? python recipes/preflight.py [YAML] [key=value ...]."""

import sys

from theworld.commands.preflight import command

if __name__ == "__main__":
    sys.exit(command())
