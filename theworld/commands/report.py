"""A run on one page: python recipes/report.py SAVE_FOLDER [--html FILE]

Writes a page that needs nothing else: state and place, the audit's verdicts, loss, learning rate, throughput, loader
wait and memory over the batches, the starts on a time line and how each has ended, counts, evaluations, checkpoints,
configuration. Changes nothing else, and may be called at any time. A run that ends calls it by itself.
Of a run in stages it is the newest stage's page; the others are those of their folders.
Exit code 0: written, 2: bad input.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from theworld.cli import Parser, run, say
from theworld.errors import EXIT_DONE
from theworld.stage_folders import newest_run


def main(argv: list[str]) -> int:
    parser = Parser("recipes/report.py", __doc__)
    parser.add_argument("save_folder", metavar="SAVE_FOLDER", type=Path, help="the run's")
    parser.add_argument("--html", metavar="FILE", type=Path, help="(default SAVE_FOLDER/report.html)")
    parser.add_argument("--no-audit", action="store_true", help="leave the audit out: it reads the whole ledger")
    given = parser.parse(argv)
    from theworld.pages.page_file import write_page
    from theworld.pages.run_page import run_page

    folder = newest_run(given.save_folder)
    path = given.html or folder / "report.html"
    write_page(path, run_page(folder, audited=not given.no_audit))
    say(path.resolve().as_uri())
    return EXIT_DONE


command = partial(run, main)
