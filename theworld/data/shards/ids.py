"""The ids of a data set, by generation."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from theworld.data.shards.dataset import generation_ids
from theworld.data.shards.mds import read_ids
from theworld.errors import UserError

log = logging.getLogger(__name__)


def data_set_ids(folder: str | None) -> dict[str, list[str]] | None:
    """Ids of each generation, in order; a data set made by other tools is one generation, "all".

    Args:
        folder: the data set; None, or a URL, which would have to be downloaded, give None.

    Raises:
        UserError: there is no data set, or its ids cannot be read.
    """
    if folder is None or "://" in folder:
        log.warning("the ids of %s are not read: only repeats can be found", folder or "an unknown data set")
        return None
    root = Path(folder)
    manifest = root / "manifest.json"
    if manifest.is_file():
        names = [entry["name"] for entry in json.loads(manifest.read_text(encoding="utf-8"))["generations"]]
        return {name: generation_ids(root / name) for name in names}
    if not (root / "index.json").is_file():
        raise UserError(f"{folder}: no manifest.json or index.json; name the folder that convert/to_mds.py wrote")
    shards = json.loads((root / "index.json").read_text(encoding="utf-8"))["shards"]
    return {"all": [name for shard in shards for name in read_ids(root / shard["raw_data"]["basename"])]}
