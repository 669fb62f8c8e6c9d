"""The stages of a run whose save folder is gone: which have ended, and what they left, from their repos on the Hub."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from theworld.checkpoint.on_disk import newest_whole_checkpoint, parse_name
from theworld.config.hub_url import Place
from theworld.config.schema import Config
from theworld.hub.finished import InRepo, look_at, note_finished_in_repo
from theworld.hub.resume import fetch_checkpoint
from theworld.patience import patiently
from theworld.stage_folders import Stage
from theworld.train.hub_sync import is_sharded
from theworld.train.records import write_config
from theworld.uploaded import last_uploaded, note_uploaded

log = logging.getLogger(__name__)

NOT_UPLOADED = "not-uploaded"
"""In the place of a checkpoint's name, where a stage has ended and no repo holds what it left."""


def stages_on_hub(runs: Sequence[tuple[str, Config]]) -> list[Stage]:
    """What the Hub knows of the stages of a run; rank 0 calls it, where the save folder knows of none.

    A stage has ended if its repo says so, or if a later one's holds a checkpoint: that began with its weights. The
    checkpoints and ledgers of those that have ended are brought back into their folders, so that the next one can begin
    and the audit finds all of them.

    Raises:
        NotNow: the Hub is out of reach.
        UserError: it refuses, or a checkpoint in it is damaged.
    """
    found = [look_patiently(config) for _, config in runs]
    begun = max((number for number, one in enumerate(found) if one is not None), default=-1)
    stages = []
    for number, ((name, config), one) in enumerate(zip(runs, found, strict=True)):
        if number < begun or (one is not None and one.finished):
            stages.append(ended(name, config, one))
        else:
            stages.append(Stage(name))
    return stages


def look_patiently(config: Config) -> InRepo | None:
    """What the repo of a stage holds; None if it has no repo, or nothing in it."""
    repo = config.hub.repo_id
    if repo is None or not config.autoresume:
        return None
    with tempfile.TemporaryDirectory() as work:
        look = partial(look_at, repo, Path(work))
        return patiently(look, "the stages on the Hub", config.train_loader.dataset.patience)


def ended(name: str, config: Config, one: InRepo | None) -> Stage:
    """A stage that has ended, with its folder brought back."""
    repo, folder = config.hub.repo_id, Path(str(config.save_folder))
    if one is None or repo is None:
        log.warning("stage %s has ended, as the next one's repo shows, and no repo holds what it left", name)
        return Stage(name, NOT_UPLOADED, None)
    there = newest_whole_checkpoint(folder)
    if there is not None and there.batch >= one.batch:
        # stages.json alone was lost: what lies here is not replaced by what may be older.
        return Stage(name, there.path.name, there.batch)
    bring_back(config, repo, folder)
    log.info("stage %s has ended with %s, by %s", name, one.checkpoint, repo)
    return Stage(name, local_name(one.checkpoint, config), one.batch)


def bring_back(config: Config, repo: str, folder: Path) -> None:
    """The checkpoint and the ledger of a stage, into its folder."""
    fetch = partial(fetch_checkpoint, Place(repo), folder, is_sharded(config), False)
    path = patiently(fetch, "a stage's checkpoint", config.train_loader.dataset.patience)
    assert path is not None
    note_uploaded(folder, repo, parse_name(path.name)[1])
    write_config(config, folder)


def local_name(checkpoint: str, config: Config) -> str:
    """The name that a fetched checkpoint has in its folder."""
    stem = checkpoint.removesuffix("-rank0.pt")
    return stem if is_sharded(config) else f"{stem}-rank0.pt"


def tell_hub(config: Config, stage: Stage) -> None:
    """Have a stage's repo say that the stage has ended; rank 0 calls it."""
    repo, folder = config.hub.repo_id, Path(str(config.save_folder))
    if repo is None or stage.checkpoint is None:
        return
    if last_uploaded(folder, repo) == stage.batch:
        note_finished_in_repo(repo, stage.name, stage.checkpoint)
    else:
        log.warning(
            "stage %s: its last checkpoint has not reached %s, which another machine would go on from; upload it: "
            "recipes/push.py %s %s",
            stage.name,
            repo,
            folder,
            repo,
        )
