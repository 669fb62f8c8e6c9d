"""What lies where in a repo that a run uploads to, and what is taken from one.

Weights, configuration, processor and card stand at the top, as ``from_pretrained`` and people expect them; what a
resume needs beside them stands in ``resume/``. No file of it is a pickle.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

STATE = "resume/state.json"
TENSORS = "resume/tensors.safetensors"
FINISHED = "resume/finished.json"
"""In a stage's repo: that the stage has ended, with which checkpoint."""
LEDGER = re.compile(r"resume/(ledger/(?:rank\d+|passes)\.jsonl|launches\.jsonl)")
REPLACED = ["model*.safetensors", "model.safetensors.index.json", "adapter_*", "resume/**"]
"""Files of an earlier upload that go unless the new one has them too."""
UNSAFE = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".distcp", ".metadata")
"""Endings of files that are pickles or hold some: loading them may run code."""

BLOCK = 1 << 20


def describe(path: Path) -> dict[str, int | str]:
    """Size and SHA-256 of a file, as ``state.json`` lists them."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
