"""How far everything is: python convert/status.py [YAML] [key=value ...]."""

import sys

from theworld.commands.status import command

if __name__ == "__main__":
    sys.exit(command())
