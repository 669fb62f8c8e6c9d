"""Upload a run's newest checkpoint to the Hub: python recipes/push.py SAVE_FOLDER REPO [--public]

For a run that was trained without hub.repo_id, or whose last upload failed. REPO is OWNER/NAME; it is made if it is not
there, private unless --public. Broken off and called again, it sends only what the Hub does not have yet.
Exit code 0: uploaded, 2: bad input, or the Hub refuses, 75: the Hub is out of reach, run it again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# As recipes/train.py: plain HTTP, which goes on after a break and is what was tested.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")

from theworld import cli
from theworld.config.hub_url import REPO
from theworld.errors import EXIT_DONE, EXIT_RUN_AGAIN, UserError


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return EXIT_DONE
    names = [argument for argument in argv if not argument.startswith("-")]
    if len(names) != 2 or set(argv) - set(names) - {"--public"}:
        raise UserError("usage: python recipes/push.py SAVE_FOLDER REPO [--public]")
    save_folder, repo = Path(names[0]), names[1]
    if not save_folder.is_dir():
        raise UserError(f"{save_folder}: no such folder")
    if not REPO.fullmatch(repo):
        raise UserError(f"{repo}: expected OWNER/NAME")
    from theworld.hub.push import push

    return EXIT_DONE if push(save_folder, repo, private="--public" not in argv) else EXIT_RUN_AGAIN


if __name__ == "__main__":
    sys.exit(cli.run(main))
