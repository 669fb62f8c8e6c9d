"""A run's newest checkpoint to the Hub, by hand."""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path

from theworld.checkpoint.on_disk import newest_whole_checkpoint
from theworld.config.of_run import read_run_config, setting
from theworld.errors import UserError
from theworld.hub.access import check_write_access, explain, is_unreachable, quiet_client
from theworld.hub.export import Snapshot, export
from theworld.hub.upload import CommitTimes, send, upload_progress, watched
from theworld.uploaded import WORK, note_uploaded

log = logging.getLogger(__name__)


def push(save_folder: Path, repo: str, private: bool) -> bool:
    """Upload the newest whole checkpoint of a save folder.

    Returns:
        False if the Hub is out of reach: the same call goes on later.

    Raises:
        UserError: there is no checkpoint, or the Hub refuses.
    """
    checkpoint = newest_whole_checkpoint(save_folder)
    if checkpoint is None:
        raise UserError(f"{save_folder}: no whole checkpoint in it")
    if not check_write_access(repo, private):
        return False
    work = save_folder / WORK / "push"
    try:
        snapshot = Snapshot.take(save_folder, checkpoint.path, work / "snapshot")
        export(snapshot, work / "export", repo)
        commits = CommitTimes(save_folder / WORK / "commits.txt")
        client, name, never = quiet_client(), run_name(save_folder), threading.Event()
        with watched(upload_progress(work / "export", snapshot.batch)):
            done = send(client, work / "export", repo, snapshot.batch, name, commits, never)
    except UserError:
        raise
    except Exception as error:  # the client's, or the disk's
        if is_unreachable(error) and not isinstance(error, (FileNotFoundError, PermissionError)):
            log.warning("%s: %s; run again to go on", repo, explain(error, repo))
            return False
        raise UserError(f"{repo}: {explain(error, repo)}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    note_uploaded(save_folder, repo, snapshot.batch, done.oid)
    log.info("uploaded batch %d to %s", snapshot.batch, done.commit_url)
    return True


def run_name(save_folder: Path) -> str:
    """As the run's own configuration has it."""
    path = save_folder / "config.yaml"
    found = setting(read_run_config(path), "run_name")
    return str(found or save_folder.name)
