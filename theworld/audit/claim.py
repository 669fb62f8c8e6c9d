"""What the newest whole checkpoint of a run says of its passes.

A checkpoint file is a zip archive with a pickle in it, a sharded checkpoint a folder of such. The pickles are never
executed: their operations are read one by one, and the text of the proof is among their arguments.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from theworld.audit.due import SourceClaim, parse_mix
from theworld.audit.sharded_proof import read_entry
from theworld.errors import UserError

KEY = "theworld_proof"
VERSION = 1
NAME = re.compile(r"ep(\d+)-ba(\d+)(-rank0\.pt)?")
KINDS = ("trained", "skipped", "lost")
MODULUS = 2**128
DAMAGE = (zipfile.BadZipFile, EOFError, LookupError, ValueError, TypeError, NotImplementedError, RecursionError)
"""What reading a damaged checkpoint raises."""
READ_WHOLE = 4 << 30
"""Bytes up to which all of a checkpoint file is compared with its check sums."""


@dataclass(frozen=True)
class Span:
    """Batches ``first .. end - 1`` of the run, done by one attempt on so many ranks."""

    launch: int
    first: int
    end: int
    ranks: int


@dataclass(frozen=True)
class Sum:
    """How many ids, and the sum of their hashes modulo 2**128."""

    count: int = 0
    digest: int = 0

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.count + other.count, (self.digest + other.digest) % MODULUS)

    def __sub__(self, other: Sum) -> Sum:
        return Sum(self.count - other.count, (self.digest - other.digest) % MODULUS)


@dataclass(frozen=True)
class Parent:
    """Where a pass began if not in this run's ledger."""

    path: str
    batch: int
    ids: dict[str, Sum] | None
    """What it had by then; None where nobody wrote it down."""


@dataclass(frozen=True)
class PassClaim:
    """What a run says of one pass."""

    number: int
    ended: bool
    spans: list[Span]
    ids: dict[str, Sum] | None
    """By kind, the parent's included; None for a run whose checkpoints carry no proof."""
    generations: dict[str, str | None]
    """Name to fingerprint of the generations that the pass knew."""
    parent: Parent | None = None
    sources: list[SourceClaim] = field(default_factory=list)
    """What the pass takes of each data set that it mixes; empty where it has but one."""


@dataclass(frozen=True)
class Claim:
    """What a run says of its passes; ``checkpoint`` is None if this was guessed."""

    checkpoint: Path | None
    passes: list[PassClaim]
    notes: list[str] = field(default_factory=list)
    newest_launch: int = 0
    """The attempt that wrote the checkpoint."""

    @property
    def batches(self) -> int:
        """Batches done by the run."""
        return max((span.end for one in self.passes for span in one.spans), default=0)


def newest_claim(save_folder: Path) -> Claim | None:
    """The claim in the newest whole checkpoint; None if there is none, or it was written without a proof.

    The newest is the last one of the newest attempt that has saved: what an older attempt saved further on is of a
    future that was abandoned when the newer one went on from before it.

    Raises:
        UserError: the proof is of a version that this audit does not know.
    """
    notes: list[str] = []
    found: list[tuple[int, Path, Claim | None]] = []
    for path in checkpoints(save_folder):
        try:
            text = text_in_folder(path) if path.is_dir() else text_in_file(path)
            claim = parse_claim(path, text, notes) if text is not None else None
        except DAMAGE as error:
            notes.append(f"{path.name}: not a whole checkpoint, passed over ({error})")
            continue
        found.append((claim.newest_launch if claim else 0, path, claim))
    # Stable: of one attempt the newest batch stays in front.
    for _, path, claim in sorted(found, key=lambda one: -one[0]):
        try:
            check_whole(path)
            return claim
        except DAMAGE as error:
            notes.append(f"{path.name}: not a whole checkpoint, passed over ({error})")
    return None


def checkpoints(save_folder: Path) -> list[Path]:
    """Newest first, whole or not."""
    found = []
    for path in save_folder.iterdir():
        match = NAME.fullmatch(path.name)
        if match and not path.is_symlink():
            found.append((int(match[2]), int(match[1]), path))
    return [path for _, _, path in sorted(found, reverse=True)]


def check_whole(path: Path) -> None:
    """Compare all of a checkpoint file with its check sums, up to :data:`READ_WHOLE`.

    Raises:
        zipfile.BadZipFile: some of it is damaged.
    """
    if path.is_dir() or path.stat().st_size > READ_WHOLE:
        return
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} is damaged")


def text_in_file(path: Path) -> str | None:
    """The proof in a checkpoint file.

    Raises:
        zipfile.BadZipFile: the file is cut, or the proof damaged.
    """
    with zipfile.ZipFile(path) as archive:
        return text_in_archive(archive)


def text_in_archive(archive: zipfile.ZipFile) -> str | None:
    """The proof in what ``torch.save`` wrote.

    Raises:
        zipfile.BadZipFile: there is no pickle in it.
    """
    pickled = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
    if pickled is None:
        raise zipfile.BadZipFile("no data.pkl in it")
    for _, argument, _ in pickletools.genops(archive.read(pickled)):
        if isinstance(argument, str) and argument.startswith(f'{{"{KEY}": '):
            return argument
    return None


def text_in_folder(path: Path) -> str | None:
    """The proof in a sharded checkpoint.

    Raises:
        ValueError: a part of it is missing.
    """
    parts = list(path.glob("*.distcp"))
    if not (path / ".metadata").is_file() or not parts or not all(part.stat().st_size for part in parts):
        raise ValueError("a part is missing")
    entry = read_entry(path, f"state.{KEY}")
    if entry is None:
        return None
    with zipfile.ZipFile(io.BytesIO(entry)) as archive:
        return text_in_archive(archive)


def parse_claim(path: Path, text: str, notes: list[str]) -> Claim:
    content = json.loads(text)
    if content[KEY] != VERSION:
        raise UserError(f"{path}: its proof is of version {content[KEY]}, this audit knows {VERSION}")
    newest = max((span[0] for one in content["passes"] for span in one["lineage"]), default=0)
    return Claim(path, [parse_pass(one) for one in content["passes"]], notes, newest)


def parse_pass(content: dict[str, Any]) -> PassClaim:
    parent = content["parent"]
    return PassClaim(
        number=content["pass"],
        ended=content["ended"],
        spans=[Span(*span) for span in content["lineage"] if span[2] > span[1]],
        ids=parse_sums(content),
        generations={one["name"]: one["fingerprint"] for one in content["generations"]},
        parent=Parent(parent["path"], parent["batch"], parse_sums(parent["ids"]) if parent["ids"] else None)
        if parent
        else None,
        sources=parse_mix(content.get("mix")),
    )


def parse_sums(content: dict[str, Any]) -> dict[str, Sum]:
    return {kind: Sum(content[kind]["count"], int(content[kind]["digest"], 16)) for kind in KINDS}
