"""Look at a data set's samples: python convert/preview.py OUT."""

import sys

from theworld.commands.preview import command

if __name__ == "__main__":
    sys.exit(command())
