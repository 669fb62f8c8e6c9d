"""A run's audit against what its own configuration names: the data set and the JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from theworld.audit import Audit, DataSet, GenerationIds, JsonIds, audit
from theworld.config.of_run import read_run_config, setting
from theworld.data.entries.hub_json import SCHEME, HubFile
from theworld.data.shards.ids import data_set_ids, ids_in_json
from theworld.errors import UserError


def audit_run(save_folder: Path, data_set: str | None = None) -> Audit:
    """The verdicts on a run.

    Args:
        save_folder: the run's.
        data_set: a folder or a URL; None: the one in its config.yaml.

    Raises:
        UserError: there is no such folder, or no such data set where one was named.
    """
    if not save_folder.is_dir():
        raise UserError(f"{save_folder}: no such folder")
    config = read_run_config(save_folder / "config.yaml")
    members = read_data_set(data_set) if data_set else configured_data_set(config)
    return audit(save_folder, members, configured_json(config))


def configured_data_set(config: dict[str, Any]) -> DataSet:
    """The data set that the run was configured with; one that is out of reach leaves its verdict unchecked."""
    section = "train_loader.dataset"
    where = setting(config, f"{section}.remote") or setting(config, f"{section}.local")
    if where is None:
        return DataSet(None, "config.yaml names no data set")
    split = setting(config, f"{section}.split")
    try:
        return read_data_set(f"{where}/{split}" if split else str(where))
    except UserError as error:
        return DataSet(None, str(error))


def read_data_set(where: str) -> DataSet:
    return DataSet([GenerationIds(one.name, one.fingerprint, one.ids) for one in data_set_ids(where)])


def configured_json(config: dict[str, Any]) -> JsonIds:
    """The ids that the run's JSON names, if that is a file here, or was downloaded to here: it may have 30 GB, which no
    audit fetches by itself."""
    where = setting(config, "convert.json")
    if where is None:
        return JsonIds(None, "config.yaml names no convert.json")
    path: Path | None = Path(str(where))
    if str(where).startswith(SCHEME):
        cache = setting(config, "convert.json_cache")
        path = HubFile.from_url(str(where), str(cache) if cache else None).copy_here()
    if path is None or not path.is_file():
        return JsonIds(None, f"{where} is not a file here")
    holdout = setting(config, "convert.holdout")
    return JsonIds(ids_in_json(path, holdout if isinstance(holdout, float) else 0.0))
