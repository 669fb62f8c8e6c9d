"""How a run is: python recipes/status.py SAVE_FOLDER [--json] [--watch]

Running, waiting, stuck, stopped or finished; its place in the pass, samples a second and time left, the share of time
that the loader is waited for, the last loss, age and size of the newest checkpoint, what has still to go to the Hub,
starts, preemptions and steps lost, samples without loss and steps that were not finite, disk left. Changes nothing, and
may be called at any time. --json: one line of JSON, shares in percent. --watch: again each 5 seconds, until the run has
ended.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

from theworld.cli import Parser, run, say
from theworld.errors import EXIT_DONE
from theworld.monitor.run_status import read_status
from theworld.monitor.status_table import as_lines

EVERY = 5.0
OVER = ("stopped", "finished")


def main(argv: list[str]) -> int:
    parser = Parser("recipes/status.py", __doc__)
    parser.add_argument("save_folder", metavar="SAVE_FOLDER", type=Path, help="the run's")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    parser.add_argument("--watch", action="store_true", help="again each 5 seconds, until the run has ended")
    given = parser.parse(argv)
    while True:
        status = read_status(given.save_folder)
        text = json.dumps(status.as_json()) if given.json else as_lines(status)
        if given.watch and not given.json and sys.stdout.isatty():
            print("\x1b[H\x1b[2J", end="")
        say(text)
        if not given.watch or status.state in OVER:
            return EXIT_DONE
        time.sleep(EVERY)


command = partial(run, main)
