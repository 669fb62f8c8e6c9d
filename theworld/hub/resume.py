"""A checkpoint on the Hub -> a checkpoint file in the save folder, checked, and without running anything of it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from huggingface_hub import HfApi, errors
from huggingface_hub.hf_api import RepoFile
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.distributed.checkpoint.format_utils import torch_save_to_dcp

from theworld.checkpoint.on_disk import PREFIX, parse_name
from theworld.checkpoint.weights import RECORD
from theworld.compat import network_errors
from theworld.config.hub_url import Place
from theworld.disk_space import in_megabytes
from theworld.errors import NotNow, UserError
from theworld.file_limits import too_large
from theworld.files import nearest_folder, put_in_place
from theworld.hub.access import explain, fault, quiet_client, safe_line
from theworld.hub.export import VERSION, is_needed
from theworld.hub.layout import STATE, TENSORS, UNSAFE, describe
from theworld.hub.plain_state import check_lines, plain_state
from theworld.hub.state_codec import decode
from theworld.model.weight_files import read_weights
from theworld.uploaded import WORK

log = logging.getLogger(__name__)

COMMITS_TRIED = 20
"""How far back to look for a whole checkpoint when the newest is damaged."""
OF_ANOTHER_FORM = (
    SafetensorError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What taking apart a file raises that somebody has written by hand."""


class Damaged(Exception):
    """A commit whose checkpoint is not whole; says why."""


class NoCheckpoint(Damaged):
    """A commit that is not one of this trainer's uploads."""


def fetch_checkpoint(
    place: Place, save_folder: Path, sharded: bool, may_miss: bool, client: HfApi | None = None
) -> Path | None:
    """Bring the newest whole checkpoint of a repo, with the run's ledger, into an empty save folder.

    Args:
        place: a repo; with a revision exactly that one.
        save_folder: of the run that goes on.
        sharded: write the folder that sharded FSDP reads, and not a file.
        may_miss: give None where the repo has nothing yet.
        client: the Hub's; None: the usual one.

    Raises:
        UserError: there is none, or it is not safe to load.
        NotNow: the Hub is out of reach; what has come is kept for the next attempt.
    """
    client = client or quiet_client()
    faults: list[Damaged] = []
    with folder_of_download(save_folder) as work:
        for commit in commits_of(client, place, may_miss):
            try:
                description = download(client, place.repo, commit, work / commit, weights_only=False)
                checkpoint = write_checkpoint(work / commit, description, save_folder, sharded)
            except Damaged as error:
                faults.append(error)
                if not isinstance(error, NoCheckpoint):
                    log.warning("%s at %s: %s; looking at the commit before", place.repo, commit[:8], error)
                continue
            log.info("took %s from %s at %s", checkpoint.name, place.repo, commit[:8])
            return checkpoint
    if may_miss and all(isinstance(fault, NoCheckpoint) for fault in faults):
        log.info("%s holds no checkpoint yet", place)
        return None
    raise UserError(f"{place}: {faults[0] if faults else 'the repo is empty'}")


def fetch_weights(place: Place, save_folder: Path) -> Path:
    """The weights of a repo as a file for ``load_weights_only``.

    Raises:
        UserError: there are none, or they are not safe to load.
        NotNow: the Hub is out of reach; what has come is kept for the next attempt.
    """
    client = quiet_client()
    with folder_of_download(save_folder) as work:
        for commit in commits_of(client, place, may_miss=False)[:1]:
            try:
                description = download(client, place.repo, commit, work / commit, weights_only=True)
                record = description["state"]["state"][RECORD]
            except (Damaged, *OF_ANOTHER_FORM) as error:
                raise UserError(f"{place}: {error}") from error
            start = save_folder / WORK / f"start-{commit[:12]}.pt"
            torch.save({"state": {"model": composer_weights(work / commit, description), RECORD: record}}, start)
            return start
    raise UserError(f"{place}: the repo is empty")


@contextmanager
def folder_of_download(save_folder: Path) -> Iterator[Path]:
    """Where files of a repo come to; removed at the end, but kept where the Hub fell silent and is asked again."""
    work = save_folder / WORK / "download"
    try:
        yield work
    except NotNow:
        raise
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)


def commits_of(client: HfApi, place: Place, may_miss: bool) -> list[str]:
    """Commits to look at, newest first.

    Raises:
        UserError: there is no such repo or revision.
        NotNow: the Hub is out of reach.
    """
    try:
        found = client.list_repo_commits(place.repo, revision=place.revision)
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{place}: the repo has no such revision") from error
    except errors.RepositoryNotFoundError as error:
        if may_miss:
            return []
        raise UserError(f"{place}: {explain(error, place.repo)}") from error
    except (*network_errors(), OSError) as error:
        found = fault(error, str(place), place.repo)
        hint = "; no new run is begun while it may hold a checkpoint" if isinstance(found, NotNow) else ""
        raise type(found)(f"{found}{hint}") from error
    return [commit.commit_id for commit in found[: 1 if place.revision else COMMITS_TRIED]]


def download(client: HfApi, repo: str, commit: str, work: Path, weights_only: bool) -> dict[str, Any]:
    """Fetch what a resume needs and compare it with the sizes and hashes that were written down.

    ``work`` is the commit's own: what an attempt that broke off has left of it is not fetched again.

    Returns:
        What ``resume/state.json`` says.

    Raises:
        Damaged: it is no checkpoint of this trainer, or not whole.
        NotNow: the Hub broke off.
        UserError: it refused, or the disk did.
    """
    for other in work.parent.iterdir() if work.parent.is_dir() else ():
        if other != work:
            shutil.rmtree(other, ignore_errors=True)
    try:
        sizes = sizes_of(client, repo, commit)
        if STATE not in sizes:
            raise NoCheckpoint(why_not(list(sizes)))
        check_sizes({STATE: sizes[STATE]}, work)
        description = read_description(Path(client.hf_hub_download(repo, STATE, revision=commit, local_dir=work)))
        wanted = {
            name: expected
            for name, expected in description["files"].items()
            if not (weights_only and name.startswith("resume/"))
        }
        for name in wanted.keys() & sizes.keys():
            if sizes[name] != wanted[name]["bytes"]:
                raise Damaged(f"{name} is not the file that was uploaded")
        check_sizes({name: sizes.get(name, 0) for name in wanted}, work)
        for name, expected in wanted.items():
            fetch_file(client, repo, commit, name, expected, work)
    except errors.LocalEntryNotFoundError as error:
        # A kind of EntryNotFoundError, but it says that the Hub did not answer.
        raise fault(error, f"hf://{repo}", repo) from error
    except errors.EntryNotFoundError as error:
        raise Damaged(f"a file that {STATE} names is missing") from error
    except (*network_errors(), OSError) as error:
        raise fault(error, f"hf://{repo}", repo) from error
    return description


def sizes_of(client: HfApi, repo: str, commit: str) -> dict[str, int]:
    """The files of a commit and how many bytes each has."""
    tree = client.list_repo_tree(repo, revision=commit, recursive=True)
    return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}


def check_sizes(sizes: dict[str, int], work: Path) -> None:
    """Before any of these files is fetched: none is larger than its kind, and there is room for all.

    Raises:
        Damaged: one is.
        UserError: there is no room.
    """
    for name, size in sizes.items():
        too_much = too_large(name, size)
        if too_much is not None:
            raise Damaged(too_much)
    there = sum((work / name).stat().st_size for name in sizes if (work / name).is_file())
    needed, free = sum(sizes.values()) - there, shutil.disk_usage(nearest_folder(work)).free
    if needed > free:
        raise UserError(
            f"{work.parent.parent.parent}: the checkpoint on the Hub takes {in_megabytes(needed)}, and "
            f"{in_megabytes(free)} are free; free some space, or set another save_folder"
        )


def why_not(names: list[str]) -> str:
    """Why a repo without a state of ours is not loaded."""
    unsafe = sorted(name for name in names if name.endswith(UNSAFE))
    if unsafe:
        return f"holds {unsafe[0]}, a pickle that could run code, and no {STATE}; only what this trainer uploaded loads"
    return f"has no {STATE}"


def read_description(path: Path) -> dict[str, Any]:
    """``resume/state.json``, with nothing in it that leads out of the folder.

    Raises:
        Damaged: it is of another form or version.
    """
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        if description["version"] != VERSION:
            raise Damaged(f"{STATE} is of version {description['version']}, this trainer reads {VERSION}")
        parse_name(description["checkpoint"])
        for name, expected in description["files"].items():
            if not is_needed(name) or ".." in PurePosixPath(name).parts:
                raise Damaged(f"{STATE} names {name!r}, which is not part of a checkpoint")
            if not {"bytes", "sha256"} <= expected.keys():
                raise Damaged(f"{STATE} has no size and hash of {name}")
        if not {"weights", "state"} <= description.keys():
            raise Damaged(f"{STATE} names no weights, or holds no state")
    except OF_ANOTHER_FORM as error:
        raise Damaged(f"{STATE} is damaged ({safe_line(error)})") from error
    return description


def fetch_file(client: HfApi, repo: str, commit: str, name: str, expected: dict[str, Any], work: Path) -> None:
    """One file, compared with what it should be.

    Raises:
        Damaged: it is another.
    """
    path = Path(client.hf_hub_download(repo, name, revision=commit, local_dir=work))
    if describe(path) != expected:
        raise Damaged(f"{name} is not the file that was uploaded")


def composer_weights(work: Path, description: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights under Composer's names.

    Raises:
        Damaged: one that should be there is not.
    """
    try:
        found = {PREFIX + name: weight for name, weight in read_weights(work).items()}
    except UserError as error:
        raise Damaged(str(error)) from error
    lost = sorted(set(description["weights"]) ^ found.keys())
    if lost:
        raise Damaged(f"{len(lost)} weights are missing or too many, for example {lost[0]}")
    return found


def write_checkpoint(work: Path, description: dict[str, Any], save_folder: Path, sharded: bool) -> Path:
    """The ledger and, last, the checkpoint, under their own names in the save folder.

    Raises:
        Damaged: the state cannot be put together.
    """
    try:
        whole = plain_state(decode(description["state"], load_file(work / TENSORS)))
        whole["state"]["model"] = composer_weights(work, description)
        lines = [name for name in description["files"] if name.startswith("resume/") and name != TENSORS]
        for name in lines:
            check_lines(work / name)
    except OF_ANOTHER_FORM as error:
        raise Damaged(f"the state cannot be read ({safe_line(error)})") from error
    for name in lines:
        target = save_folder / name.removeprefix("resume/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(work / name, target)
    stem = description["checkpoint"].removesuffix("-rank0.pt")
    final = save_folder / (stem if sharded else f"{stem}-rank0.pt")
    aside = work / "whole.pt"
    torch.save(whole, aside)
    if sharded:
        folder = work / "sharded"
        torch_save_to_dcp(aside, folder)
        aside = folder
    put_in_place(aside, final)
    return final
