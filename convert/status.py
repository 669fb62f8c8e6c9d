"""How far everything is: python convert/status.py [YAML] [key=value ...]

Images wanted, there, missing for good; generations and samples; JSON and disk; what the next runs would pick up.
Changes nothing and may be called at any time.
"""

from __future__ import annotations

import sys

from theworld.cli import run
from theworld.config.load import load_config
from theworld.download.status import status
from theworld.errors import EXIT_DONE


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return EXIT_DONE
    print(status(load_config(argv)).table())
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(run(main))
