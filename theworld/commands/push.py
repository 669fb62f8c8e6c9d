"""Upload a run's newest checkpoint to the Hub: python recipes/push.py SAVE_FOLDER REPO [--public]

For a run that was trained without hub.repo_id, or whose last upload failed. REPO is OWNER/NAME; it is made if it is not
there, private unless --public. Of a run in stages the newest stage's goes. Broken off and called again, it sends only
what the Hub does not have yet.
Exit code 0: uploaded, 2: bad input, or the Hub refuses, 75: the Hub is out of reach, run it again.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

# As recipes/train.py: plain HTTP, which goes on after a break and is what was tested.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")

from theworld import cli
from theworld.config.hub_url import REPO
from theworld.errors import EXIT_DONE, EXIT_RUN_AGAIN, UserError
from theworld.stage_folders import newest_run


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/push.py", __doc__)
    parser.add_argument("save_folder", metavar="SAVE_FOLDER", type=Path, help="the run's")
    parser.add_argument("repo", metavar="REPO", help="OWNER/NAME of a model repo")
    parser.add_argument("--public", action="store_true", help="make a repo that is not there yet public")
    options = parser.parse(argv)
    save_folder, repo = options.save_folder, options.repo
    if not save_folder.is_dir():
        raise UserError(f"{save_folder}: no such folder")
    if not REPO.fullmatch(repo):
        raise UserError(f"{repo}: expected OWNER/NAME")
    from theworld.hub.push import push

    return EXIT_DONE if push(newest_run(save_folder, saved=True), repo, private=not options.public) else EXIT_RUN_AGAIN


command = partial(cli.run, main)
