"""What a start of a run begins with: its own newest checkpoint, one of the Hub, ``load_path``, or nothing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from theworld.checkpoint.fence import Fence
from theworld.checkpoint.on_disk import Checkpoint, list_checkpoints, newest_start_saved, newest_whole_checkpoint
from theworld.config.schema import Config
from theworld.errors import UserError
from theworld.patience import patiently
from theworld.ranks import from_rank_zero
from theworld.train.callbacks.ledger import newest_attempt
from theworld.train.hub_sync import fetch_from_hub


def find_start(config: Config, save_folder: Path, fence: Fence) -> tuple[Checkpoint | None, str | None]:
    """Look for what to begin with, and number this start above all that are known of; all ranks call it.

    Returns:
        The run's own checkpoint that it goes on from, if there is one; and the path to load, of this machine.

    Raises:
        UserError: the Hub has no such checkpoint, or the save folder is of another run.
        NotNow: what there is cannot be read.
        Stopped: the run is to stop meanwhile.
    """
    fetched, load_path = fetch_from_hub(config, save_folder)
    # The history may have come with it; and where it is lost, the checkpoints know of starts too.
    patience = config.train_loader.dataset.patience
    saved_by = partial(patiently, partial(newest_start_saved, save_folder), "the checkpoints", patience)
    fence.move_above(lambda: max(newest_attempt(save_folder), saved_by()))
    resume = find_resume(config, save_folder, fetched)
    return resume, load_path if resume is None else str(resume.path)


def find_resume(config: Config, save_folder: Path, fetched: Path | None = None) -> Checkpoint | None:
    """The checkpoint to go on from, the same on all ranks: rank 0 looks.

    Args:
        config: the run.
        save_folder: of the run.
        fetched: a checkpoint that has just come from the Hub.

    Raises:
        UserError: the run is to begin anew where the checkpoints of another lie, which later starts would go on from.
        NotNow: the newest cannot be read.
    """
    if not config.autoresume and fetched is None and list_checkpoints(save_folder):
        raise UserError(
            f"autoresume: false, but {save_folder} holds the checkpoints of an earlier run; set another save_folder, "
            "or autoresume=true to go on with that run"
        )
    if not config.autoresume and fetched is None:
        return None
    return from_rank_zero(
        lambda: patiently(
            lambda: newest_whole_checkpoint(save_folder),
            "the newest checkpoint",
            config.train_loader.dataset.patience,
        )
    )
