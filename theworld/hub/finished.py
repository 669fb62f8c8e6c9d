"""A stage's repo: the checkpoint that it holds, and whether the stage has ended with it.

``resume/finished.json`` is committed when a stage ends. Every later upload to the repo takes it away with the rest of
``resume/``.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, errors

from theworld.checkpoint.on_disk import parse_name
from theworld.compat import network_errors
from theworld.config.hub_url import Place
from theworld.hub.access import explain, fault, quiet_client
from theworld.hub.layout import FINISHED, STATE
from theworld.hub.resume import OF_ANOTHER_FORM, Damaged, check_sizes, commits_of, read_description, sizes_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InRepo:
    """What a stage's repo holds.

    Attributes:
        checkpoint: its name, as ``ep1-ba4-rank0.pt``.
        finished: the stage has ended with it.
    """

    checkpoint: str
    finished: bool

    @property
    def batch(self) -> int:
        """Batches that are in it."""
        return parse_name(self.checkpoint)[1]


def look_at(repo: str, work: Path, client: HfApi | None = None) -> InRepo | None:
    """The newest checkpoint of a repo, by what it says of itself; None if it has none, or there is no repo.

    Args:
        repo: ``OWNER/NAME``.
        work: a folder for what is fetched: two small files.
        client: the Hub's; None: the usual one.

    Raises:
        NotNow: the Hub is out of reach.
        UserError: it refuses.
    """
    client = client or quiet_client()
    for commit in commits_of(client, Place(repo), may_miss=True):
        try:
            sizes = sizes_of(client, repo, commit)
            if STATE not in sizes:
                continue
            named = {name: sizes[name] for name in (STATE, FINISHED) if name in sizes}
            check_sizes(named, work)
            for name in named:
                client.hf_hub_download(repo, name, revision=commit, local_dir=work)
            checkpoint = read_description(work / STATE)["checkpoint"]
            return InRepo(checkpoint, FINISHED in named and ended_with(work / FINISHED) == checkpoint)
        except Damaged as error:
            log.warning("%s at %s: %s; looking at the commit before", repo, commit[:8], error)
        except (*network_errors(), errors.EntryNotFoundError, OSError) as error:
            raise fault(error, f"hf://{repo}", repo) from error
    return None


def ended_with(path: Path) -> str | None:
    """The checkpoint that ``finished.json`` names; None if it is of another form."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["checkpoint"])
    except OF_ANOTHER_FORM:
        return None


def note_finished_in_repo(repo: str, stage: str, checkpoint: str, client: HfApi | None = None) -> None:
    """Commit that a stage has ended with this checkpoint, which the repo holds.

    Where the Hub does not answer that is one warning: the stage's end is seen from a later stage's uploads too.
    """
    client = client or quiet_client()
    text = json.dumps({"stage": stage, "checkpoint": checkpoint}).encode()
    try:
        client.upload_file(
            path_or_fileobj=text, path_in_repo=FINISHED, repo_id=repo, commit_message=f"stage {stage} is finished"
        )
    except (*network_errors(), OSError) as error:
        log.warning("%s does not know yet that stage %s is finished: %s", repo, stage, explain(error, repo))
