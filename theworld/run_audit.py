"""A run's audit against what its own configuration names: the data set and the JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from theworld.audit import Audit, DataSet, GenerationIds, JsonIds, audit
from theworld.config.of_run import read_run_config, setting
from theworld.config.schema import MISSING
from theworld.data.entries.formats.entry_format import OPENSPATIAL
from theworld.data.entries.hub_json import SCHEME, HubFile
from theworld.data.entries.which_format import form_of_file
from theworld.data.shards.convert_settings import images_of_entry
from theworld.data.shards.ids import GenerationOfIds, data_set_ids, ids_in_json
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
    names = [str(one.get("name")) for one in configured_sources(config)]
    if data_set and names:
        raise UserError(f"{data_set}: the run mixes {', '.join(names)}, found by its config.yaml; leave this one out")
    members = DataSet(read_data_set(data_set)) if data_set else configured_data_set(config)
    return audit(save_folder, members, configured_json(config))


def configured_sources(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The data sets that the run mixes; none where it has but one."""
    named = setting(config, "train_loader.datasets")
    return [one for one in named if isinstance(one, dict)] if isinstance(named, list) else []


def configured_data_set(config: dict[str, Any]) -> DataSet:
    """What the run was configured with; a data set that is out of reach leaves its verdict unchecked."""
    single = {key: setting(config, f"train_loader.dataset.{key}") for key in ("remote", "local", "split")}
    generations: list[GenerationIds] = []
    for source in configured_sources(config) or [single]:
        where, split = source.get("remote") or source.get("local"), source.get("split")
        if where is None:
            return DataSet(None, "config.yaml names no data set")
        try:
            generations += read_data_set(f"{where}/{split}" if split else str(where), str(source.get("name") or ""))
        except UserError as error:
            return DataSet(None, str(error))
    return DataSet(generations)


def read_data_set(where: str, name: str = "") -> list[GenerationIds]:
    """Its generations; with the data set's name in front of theirs, and of ids, where there are several."""
    begin = f"{name}/" if name else ""

    def named(one: GenerationOfIds) -> GenerationIds:
        return GenerationIds(begin + one.name, one.fingerprint, lambda: (begin + sample_id for sample_id in one.ids()))

    return [named(one) for one in data_set_ids(where)]


def configured_json(config: dict[str, Any]) -> JsonIds:
    """The ids that the run's JSON names, if that is a file here, or was downloaded to here: it may have 30 GB, which no
    audit fetches by itself."""
    if configured_sources(config):
        return JsonIds(None, "the run mixes data sets, each of which has its own")
    where = setting(config, "convert.json")
    if where in (None, MISSING):
        return JsonIds(None, "config.yaml names no convert.json")
    path: Path | None = Path(str(where))
    if str(where).startswith(SCHEME):
        cache = setting(config, "convert.json_cache")
        path = HubFile.from_url(str(where), str(cache) if cache else None).copy_here()
    if path is None or not path.exists():
        return JsonIds(None, f"{where} is not a file here")
    holdout, name = setting(config, "convert.holdout"), setting(config, "convert.format")
    if isinstance(name, str) and ":" in name:
        return JsonIds(None, f"convert.format is code of your own, {name}, which no audit runs")
    most = setting(config, "convert.most_images")
    # Without the key the run is of a release that took one image a sample.
    counts = images_of_entry(setting(config, "convert.world_latents") is True, most) if most else (1, 1)
    form = form_of_file(path, name if isinstance(name, str) else OPENSPATIAL, counts)
    return JsonIds(ids_in_json(path, holdout if isinstance(holdout, float) else 0.0, form))
