"""The Hub in a run: access at the start, what to go on from, checkpoints that go up, the wait at the end."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from composer.utils import dist

from theworld.checkpoint.on_disk import PRETRAINED, Checkpoint, newest_whole_checkpoint, parse_name
from theworld.config.hub_url import SCHEME, Place
from theworld.config.schema import Config
from theworld.errors import UserError
from theworld.files import put_in_place
from theworld.hub.access import check_write_access
from theworld.hub.resume import fetch_checkpoint, fetch_weights
from theworld.hub.upload import Uploader
from theworld.model.processing import TheWorldProcessor
from theworld.patience import patiently
from theworld.pulse import always, pulse
from theworld.ranks import from_rank_zero
from theworld.uploaded import WORK, note_uploaded

log = logging.getLogger(__name__)


def check_hub(config: Config) -> None:
    """Before anything is loaded: the token may write to ``hub.repo_id``.

    Raises:
        UserError: it may not; says what to do.
    """
    repo = config.hub.repo_id
    if repo is not None:
        from_rank_zero(lambda: check_write_access(repo, config.hub.private))


def fetch_from_hub(config: Config, save_folder: Path) -> tuple[Path | None, str | None]:
    """Bring from the Hub what the run starts with, where nothing of it is in ``save_folder``.

    Returns:
        A checkpoint to go on from, now in ``save_folder``, or None; and ``load_path``, a path of this machine.

    Raises:
        UserError: the Hub has no such checkpoint, or not a safe one.
        NotNow: the Hub is out of reach.
    """
    return from_rank_zero(
        lambda: patiently(
            lambda: _fetch(config, save_folder), "the newest checkpoint", config.train_loader.dataset.patience
        )
    )


def _fetch(config: Config, save_folder: Path) -> tuple[Path | None, str | None]:
    given = config.load_path
    wanted = Place.from_url("load_path", given) if given and given.startswith(SCHEME) else None
    if config.autoresume and newest_whole_checkpoint(save_folder) is not None:
        return None, given if wanted is None else None
    sharded = is_sharded(config)
    whole_wanted = wanted if not config.load_weights_only else None
    repo = config.hub.repo_id
    if config.autoresume and repo and not (whole_wanted is not None and whole_wanted.repo == repo):
        # The run's own repo comes first: load_path is where it began.
        found = fetch_checkpoint(Place(repo), save_folder, sharded, may_miss=True)
        if found is not None:
            note_uploaded(save_folder, repo, parse_name(found.name)[1])
            return found, None
    if wanted is None:
        return None, given
    try:
        if whole_wanted is not None:
            return fetch_checkpoint(whole_wanted, save_folder, sharded, may_miss=False), None
        return None, str(fetch_weights(wanted, save_folder))
    except UserError as error:
        raise type(error)(f"load_path: {error}") from error


def is_sharded(config: Config) -> bool:
    """Whether the run's checkpoints are the folders that sharded FSDP writes."""
    settings = (config.parallelism_config or {}).get("fsdp") or {}
    return settings.get("state_dict_type") == "sharded"


def write_pretrained(save_folder: Path, model: Any, processor: TheWorldProcessor) -> None:
    """``pretrained/``: configuration and processor, with which a checkpoint's weights are a model to load.

    Written at each start by rank 0. The weights that a checkpoint lacks are looked up in the base models.
    """
    if dist.get_global_rank() == 0:
        aside = save_folder / f"{PRETRAINED}.new"
        shutil.rmtree(aside, ignore_errors=True)
        config = copy.deepcopy(model.config)
        config.partial_weights = True
        config.with_world_encoder = config.enable_world
        config.architectures = [type(model).__name__]
        config.save_pretrained(aside)
        processor.save_pretrained(aside)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(aside)
        put_in_place(aside, save_folder / PRETRAINED)


class CheckpointUploads:
    """Uploads each ``hub.every``-th checkpoint and the last; does nothing where no repo is set.

    Args:
        config: of the run.
        save_folder: of the run.
        may_send: called before each upload; raises UserError if this start must not send any more.
    """

    def __init__(self, config: Config, save_folder: Path, may_send: Callable[[], None]) -> None:
        self.every = config.hub.every
        self.saves = 0
        self.newest: Path | None = None
        self.added: Path | None = None
        self.uploader: Uploader | None = None
        if config.hub.repo_id is not None and dist.get_global_rank() == 0:
            self.uploader = Uploader(save_folder, config.hub.repo_id, config.run_name, may_send=may_send)
            self.uploader.start()

    @property
    def backlog(self) -> int:
        """Checkpoints that are to go to the Hub and are not there, as rank 0 knows."""
        return self.uploader.backlog if self.uploader is not None else 0

    def resumed(self, checkpoint: Checkpoint | None) -> None:
        """Make up for what a stopped attempt could not upload any more."""
        if checkpoint is not None and self.uploader is not None and self.uploader.uploaded < checkpoint.batch:
            self._add(checkpoint.path)

    def saved(self, checkpoint: Path) -> None:
        """A checkpoint has become whole; called on rank 0."""
        self.saves += 1
        self.newest = checkpoint
        if self.saves % self.every == 0:
            self._add(checkpoint)

    def _add(self, checkpoint: Path) -> None:
        if self.uploader is not None:
            self.uploader.add(checkpoint)
            self.added = checkpoint

    def finish(self, seconds: float) -> None:
        """Wait for the last upload; all ranks call it, so that none leaves and takes rank 0 with it.

        Args:
            seconds: at the most.
        """
        with pulse.at("hub.wait", planned=always):
            if self.uploader is not None:
                if self.newest is not None and self.newest != self.added:
                    self._add(self.newest)
                self.uploader.finish(seconds)
                shutil.rmtree(self.uploader.save_folder / WORK / "download", ignore_errors=True)
            dist.barrier()
