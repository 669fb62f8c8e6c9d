"""How a run is: python recipes/status.py SAVE_FOLDER [--json] [--watch]

Running, waiting, stuck, stopped or finished; its place in the pass, samples a second and time left, the share of time
that the loader is waited for, the last loss, age and size of the newest checkpoint, what has still to go to the Hub,
starts, preemptions and steps lost, samples without loss and steps that were not finite, disk left; of a run in stages
those of the newest. Changes nothing, and may be called at any time. --json: one line of JSON, shares in percent.
--watch: again each 5 seconds, until the run has ended.
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
from theworld.stage_folders import newest_run, read_stages

EVERY = 5.0
OVER = ("stopped", "finished")


def main(argv: list[str]) -> int:
    parser = Parser("recipes/status.py", __doc__)
    parser.add_argument("save_folder", metavar="SAVE_FOLDER", type=Path, help="the run's")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    parser.add_argument("--watch", action="store_true", help="again each 5 seconds, until the run has ended")
    given = parser.parse(argv)
    while True:
        folder = newest_run(given.save_folder)
        status, names = read_status(folder), [one.name for one in read_stages(given.save_folder)]
        text = json.dumps({**stage_facts(folder, names), **status.as_json()}) if given.json else as_lines(status)
        if names and not given.json:
            text = "stage {stage}, {stage_number} of {stages}\n".format(**stage_facts(folder, names)) + text
        if given.watch and not given.json and sys.stdout.isatty():
            print("\x1b[H\x1b[2J", end="")
        say(text)
        more_follow = status.state == "finished" and names[-1:] not in ([], [folder.name])
        if not given.watch or (status.state in OVER and not more_follow):
            return EXIT_DONE
        time.sleep(EVERY)


def stage_facts(folder: Path, names: list[str]) -> dict[str, object]:
    """Which of its run's stages a folder is; nothing if the run has none."""
    return {"stage": folder.name, "stage_number": names.index(folder.name) + 1, "stages": len(names)} if names else {}


command = partial(run, main)
