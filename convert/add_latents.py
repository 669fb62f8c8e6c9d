"""Add world latents to a converted data set: python convert/add_latents.py [YAML] [key=value ...]."""

import sys

from theworld.commands.add_latents import command

if __name__ == "__main__":
    sys.exit(command())
