"""OpenImages' files for the wanted ids: python convert/download_openimages.py [YAML] [key=value ...]."""

import sys

from theworld.commands.download_openimages import command

if __name__ == "__main__":
    sys.exit(command())
