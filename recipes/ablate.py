"""Does the world help? python recipes/ablate.py YAML [key=value ...] --data FOLDER."""

import sys

from theworld.commands.ablate import command

if __name__ == "__main__":
    sys.exit(command())
