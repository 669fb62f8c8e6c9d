"""What is in an unknown file of conversations: python convert/look.py FILE [--images FOLDER] [--entries N|all]."""

import sys

from theworld.commands.look import command

if __name__ == "__main__":
    sys.exit(command())
