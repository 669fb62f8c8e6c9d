"""What lies where in a repo that a run uploads to, and what is taken from one.

Weights, configuration, processor and card stand at the top, as ``from_pretrained`` and people expect them; what a
resume needs beside them stands in ``resume/``. No file of it is a pickle.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from theworld.errors import UserError

SCHEME = "hf://"
URL = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")
REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
STATE = "resume/state.json"
TENSORS = "resume/tensors.safetensors"
LEDGER = re.compile(r"resume/(ledger/(?:rank\d+|passes)\.jsonl|launches\.jsonl)")
REPLACED = ["model*.safetensors", "model.safetensors.index.json", "resume/**"]
"""Files of an earlier upload that go unless the new one has them too."""
UNSAFE = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".distcp", ".metadata")
"""Endings of files that are pickles or hold some: loading them may run code."""

BLOCK = 1 << 20


@dataclass(frozen=True)
class Place:
    """A repo of models, and a branch, tag or commit of it (None: the newest)."""

    repo: str
    revision: str | None = None

    @classmethod
    def from_url(cls, key: str, url: str) -> Place:
        """Parse ``hf://OWNER/NAME[@REVISION]``.

        Args:
            key: the YAML key that holds it, for the message.

        Raises:
            UserError: it has another form.
        """
        match = URL.fullmatch(url)
        if not match:
            raise UserError(f"{key}: {url}: expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
        return cls(match["repo"], match["revision"])

    def __str__(self) -> str:
        return SCHEME + self.repo + (f"@{self.revision}" if self.revision else "")


def describe(path: Path) -> dict[str, int | str]:
    """Size and SHA-256 of a file, as ``state.json`` lists them."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
