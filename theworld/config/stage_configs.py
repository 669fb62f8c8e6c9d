"""``stages`` of the YAML: the configuration of each, over that of all."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from theworld.config.data_places import places_of
from theworld.config.load import merge_known
from theworld.config.schema import MISSING, STAGE_NAME, Config, ConvertConfig, LoaderConfig
from theworld.errors import UserError

ONCE = (
    *("run_name", "save_folder", "autoresume", "load_path", "load_weights_only", "stages", "download"),
    *("device", "dist_timeout", "preflight", "preemption", "code_paths", "trust_checkpoints"),
)
"""Keys that stand once for all stages: a stage begins with the weights of the one before, in a folder of its own."""


def stage_configs(config: Config) -> list[tuple[str, Config]]:
    """Each stage with its name and its configuration, in order; none if the run has no stages.

    ``load_path`` of the first is that of the run; of the others it is not set yet.

    Raises:
        UserError: a stage has no or a wrong name, or a key that is unknown or not for a stage.
    """
    stages = config.stages or []
    names = [check_name(number, one) for number, one in enumerate(stages)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"stages: two of them are called {name}; each has a folder of its own")
    return [(name, stage_config(config, name, one, one is stages[0])) for name, one in zip(names, stages, strict=True)]


def config_of_stage(config: Config, name: str) -> Config:
    """The configuration of one stage, whose ``convert`` says what its data is made of.

    Raises:
        UserError: there is no such stage, or its data is not the top's and it does not say what it is made of.
    """
    runs = dict(stage_configs(config))
    if name not in runs:
        raise UserError(f"--stage {name}: no such stage; the YAML has {', '.join(runs) or 'none'}")
    if runs[name].convert.out == MISSING:
        raise UserError(f"stages, {name}: no convert of its own, and what it trains on is not what the top's makes")
    return runs[name]


def check_name(number: int, stage: dict[str, Any]) -> str:
    """The name of a stage.

    Raises:
        UserError: it has none, or one that cannot be a folder's.
    """
    name = stage.get("name")
    if not isinstance(name, str) or not re.fullmatch(STAGE_NAME, name):
        raise UserError(
            f"stages[{number}].name: {name!r}: expected letters, digits, - and _: it is the name of the stage's folder"
        )
    return name


def stage_config(config: Config, name: str, stage: dict[str, Any], first: bool) -> Config:
    """What one stage runs with.

    Raises:
        UserError: a key is unknown or stands for all stages, or there is no max_duration.
    """
    where = f"stages, {name}"
    own = {key: value for key, value in stage.items() if key not in ("name", "freeze")}
    check_keys(where, own)
    if stage.get("max_duration") is None:
        raise UserError(f"{where}: no max_duration; each stage has its own, for example max_duration: 1ep")
    update = OmegaConf.create(own)
    if stage.get("freeze") is not None:
        update = OmegaConf.merge(update, OmegaConf.create({"model": {"freeze": stage["freeze"]}}))
    assert isinstance(update, DictConfig)
    merged = merge_known(OmegaConf.structured(replace(config, stages=None)), update, where)
    found = OmegaConf.to_object(merged)
    assert isinstance(found, Config)
    take_data_of_its_own(where, found, config, own.get("convert") or {})
    found.run_name = f"{config.run_name}-{name}"
    if config.save_folder is not None:
        found.save_folder = str(Path(config.save_folder) / name)
    if found.hub.repo_id is not None and found.hub.repo_id == config.hub.repo_id:
        found.hub.repo_id = f"{config.hub.repo_id}-{name}"
    if not first:
        found.load_path, found.load_weights_only = None, False
    return found


def take_data_of_its_own(where: str, found: Config, top: Config, convert: dict[str, Any]) -> None:
    """Have a stage whose data set is another than the top's know what that was made of, or that this is not known.

    Its audit holds it against ``convert.json``, and a run looks for arrivals in ``convert.images``: those of the top
    would be another data set's.

    Raises:
        UserError: it says how to make a data set, and trains on that of the top.
    """
    another = origins(found.train_loader) != origins(top.train_loader)
    if convert.get("out") is not None and not another:
        raise UserError(
            f"{where}: convert.out is its own, but train_loader.dataset.remote is that of the top; name there what the "
            "stage trains on"
        )
    if another and not convert:
        found.convert = ConvertConfig(images=None)


def origins(loader: LoaderConfig) -> list[tuple[str, str | None]]:
    """The data sets of a loader: name, and folder or URL."""
    return [(one.name, one.origin) for one in places_of(loader)]


def check_keys(where: str, keys: Sequence[str] | dict[str, Any]) -> None:
    """Those that a stage may have of its own.

    Raises:
        UserError: one is none of them.
    """
    known = [one.name for one in fields(Config) if one.name not in ONCE]
    for key in keys:
        if key in ONCE:
            raise UserError(f"{where}: {key}: stands once for all stages, at the top")
        if key not in known:
            near = difflib.get_close_matches(key, [*known, "freeze"], n=1)
            told = f"did you mean {near[0]}?" if near else "a stage has name, freeze, and the keys of the top"
            raise UserError(f"{where}: unknown key {key}; {told}")
