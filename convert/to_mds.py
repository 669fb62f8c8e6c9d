"""Raw files to MDS: python convert/to_mds.py [YAML] [--watch SECONDS] [key=value ...]."""

import sys

from theworld.commands.to_mds import command

if __name__ == "__main__":
    sys.exit(command())
