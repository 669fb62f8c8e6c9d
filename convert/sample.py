"""Write the built-in sample: rendered scenes with true questions, in the exact format of OpenSpatialDataset."""

import sys

from theworld.commands.sample import command

if __name__ == "__main__":
    sys.exit(command())
