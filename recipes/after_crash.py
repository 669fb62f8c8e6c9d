"""Start a crashed run again? python recipes/after_crash.py EXIT_CODE YAML [key=value ...]."""

import sys

from theworld.commands.after_crash import command

if __name__ == "__main__":
    sys.exit(command())
