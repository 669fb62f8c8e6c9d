"""Which start of the run wrote a checkpoint, as the proof in it tells, without loading the rest of it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from theworld.checkpoint.pass_proof import PROOF, RunProof

BEGINNING = f'{{"{PROOF}": '.encode()
"""Of the proof's text, which stands in a pickle as it is."""
LONGEST = 1 << 24
"""Bytes of a proof: more is none."""


def newest_start(checkpoint: Path) -> int:
    """The newest start in a checkpoint's lineage, which wrote it; 0 where it carries no proof.

    Args:
        checkpoint: the file, or the folder of a sharded one.

    Raises:
        OSError: it cannot be read now.
        zipfile.BadZipFile: it is cut or damaged.
    """
    content = _bytes_of_folder(checkpoint) if checkpoint.is_dir() else _bytes_of_file(checkpoint)
    place = content.find(BEGINNING)
    if place < 0:
        return 0
    text = content[place : place + LONGEST].decode("utf-8", "replace")
    try:
        end = json.JSONDecoder().raw_decode(text)[1]
        proof = RunProof.from_text(text[:end])
    except (ValueError, LookupError, TypeError, RecursionError):
        return 0
    return max((span.launch for one in proof.passes for span in one.spans), default=0)


def _bytes_of_file(path: Path) -> bytes:
    """What torch has pickled of the state, without the tensors."""
    with zipfile.ZipFile(path) as archive:
        pickled = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
        return archive.read(pickled) if pickled is not None else b""


def _bytes_of_folder(folder: Path) -> bytes:
    """The proof's own entry, by the description that was written last."""
    # Only here, so that whoever just looks for checkpoints starts without torch.
    from theworld.checkpoint.data_only import DataReader

    try:
        places = DataReader(folder).read_metadata().storage_data or {}
        place = next((place for index, place in places.items() if index.fqn == f"state.{PROOF}"), None)
        if place is None or place.length > LONGEST:
            return b""
        with (folder / place.relative_path).open("rb") as file:
            file.seek(place.offset)
            return file.read(place.length)
    except OSError:
        raise
    except Exception:  # whatever a damaged description makes the unpickler raise; loading it will say more
        return b""
