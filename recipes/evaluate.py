"""How good is it? python recipes/evaluate.py --bench spatialrgpt --questions FILE --answers FILE."""

import sys

from theworld.commands.evaluate import command

if __name__ == "__main__":
    sys.exit(command())
