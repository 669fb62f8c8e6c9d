"""Re-read every shard against hashes and the manifest: python convert/verify.py OUT."""

import sys

from theworld.commands.verify import command

if __name__ == "__main__":
    sys.exit(command())
