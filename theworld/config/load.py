"""Read the YAML and the ``key=value`` overrides into a :class:`~theworld.config.schema.Config`.

Every mistake becomes a :class:`UserError` that names the file and the key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from theworld.config.legacy_keys import LEGACY_KEYS
from theworld.config.schema import Config, SourceConfig
from theworld.errors import UserError, first_line

DEFAULT_YAML = "yamls/spatial.yaml"
CHECKOUT = Path(__file__).resolve().parents[2]


def known_keys(schema: type = Config, prefix: str = "") -> Iterator[str]:
    """Every key of the schema as a dotted name, sections included."""
    hints = get_type_hints(schema)
    for item in fields(schema):
        kind: Any = hints[item.name]
        yield prefix + item.name
        if is_dataclass(kind) and isinstance(kind, type):
            yield from known_keys(kind, f"{prefix}{item.name}.")


def split_arguments(argv: Sequence[str]) -> tuple[str, list[str]]:
    """``[YAML] [key=value ...]`` to the YAML's path and the overrides.

    Raises:
        UserError: an argument is neither.
    """
    paths = [argument for argument in argv if "=" not in argument]
    overrides = [argument for argument in argv if "=" in argument]
    for argument in argv:
        if argument.startswith("-"):
            raise UserError(f"{argument}: unknown option; settings are given as key=value")
    if len(paths) > 1:
        raise UserError(f"{paths[1]}: expected one YAML file and then key=value pairs")
    return (paths[0] if paths else DEFAULT_YAML), overrides


def load_config(argv: Sequence[str]) -> Config:
    """The resolved configuration of a command line ``[YAML] [key=value ...]``.

    Raises:
        UserError: the file is not there or not YAML, a key is unknown or missing, a type is wrong.
    """
    path, overrides = split_arguments(argv)
    content = read_yaml(path)
    lasts = [path] if is_given(content, "max_duration") else []
    config = merge_known(OmegaConf.structured(Config), content, path)
    for override in overrides:
        key, _, _value = override.partition("=")
        try:
            parsed = OmegaConf.from_dotlist([override])
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise UserError(f"{override}: cannot read the value of {key}: {with_place(error)}") from error
        if not key or not isinstance(parsed, DictConfig):
            raise UserError(f"{override}: expected key=value")
        lasts += ["command line"] if is_given(parsed, "max_duration") else []
        config = merge_known(config, parsed, "command line")
    try:
        OmegaConf.resolve(config)
        loaded = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {error_key(error)}{with_place(error)}") from error
    assert isinstance(loaded, Config)
    if loaded.stages and lasts:
        raise UserError(f"{lasts[-1]}: max_duration: each of stages has its own; leave the one at the top out")
    return loaded


def read_yaml(path: str) -> DictConfig:
    """The YAML file as it stands, interpolations unresolved."""
    file = Path(path)
    if path == DEFAULT_YAML and not file.exists():
        # The default is the checkout's own, wherever the command is called from.
        file = CHECKOUT / DEFAULT_YAML
    if not file.is_file():
        raise UserError(f"{path}: no such YAML file; the shipped ones are in yamls/")
    try:
        content = OmegaConf.load(file)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {with_place(error)}") from error
    if not isinstance(content, DictConfig):
        raise UserError(f"{path}: expected keys with values at the top level")
    return content


def merge_known(config: DictConfig, update: DictConfig, where: str) -> DictConfig:
    """``update`` over ``config``; unknown keys and wrong types become a line that names them."""
    try:
        merged = OmegaConf.merge(config, update)
    except ConfigKeyError as error:
        raise UserError(f"{where}: {unknown_in_list(update) or unknown_key(str(error.full_key))}") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {wrong_shape(error, update) or error_key(error) + with_place(error)}") from error
    except (TypeError, ValueError) as error:  # which OmegaConf lets through, for a list where keys belong
        key = next((str(name) for name in update), "")
        raise UserError(f"{where}: {key}: expected keys with values ({first_line(error)})") from error
    assert isinstance(merged, DictConfig)
    return merged


def wrong_shape(error: OmegaConfBaseException, update: DictConfig) -> str | None:
    """The line for a single value in the place of a section or a list; None if that is not what is wrong."""
    text = str(error)
    key = error.full_key or next((str(name) for name in update), "")
    if "is not a ListConfig" in text:
        return f"{key}: expected a list: {key}=[ONE,TWO]"
    found = re.match(r"Merge error: (\w+) is not a subclass of (\w+)\. value: (.*)", text)
    if found is None:
        return None
    section = next((name for name in known_keys() if section_class(name) == found[2] and is_given(update, name)), key)
    return f"{section}: {found[3]}: is a section with keys of its own: {section}.KEY=VALUE"


def section_class(key: str) -> str | None:
    """Name of the schema's class behind a key; None for a plain value."""
    schema: Any = Config
    for name in key.split("."):
        schema = get_type_hints(schema)[name]
        schema = next((one for one in (schema, *get_args(schema)) if is_dataclass(one)), None)
        if schema is None:
            return None
    return schema.__name__ if isinstance(schema, type) else None


def is_given(update: DictConfig, key: str) -> bool:
    """Whether a mapping has a value at a dotted key."""
    inner: Any = update
    for name in key.split("."):
        if not isinstance(inner, DictConfig) or name not in inner:
            return False
        inner = inner._get_node(name) if name == key.split(".")[-1] else inner[name]
    return True


def unknown_key(key: str) -> str:
    """The line for a key that the schema does not have, with what was probably meant."""
    renamed = LEGACY_KEYS.get(key.rpartition(".")[2])
    if renamed:
        return f"unknown key {key}: {renamed}"
    known = list(known_keys())
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if not close:
        same_name = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
        close = same_name[:1]
    return f"unknown key {key}" + (f"; did you mean {close[0]}?" if close else "; python -m theworld.config lists all")


def unknown_in_list(update: DictConfig) -> str | None:
    """The line for a key that a data set of a list does not have, which OmegaConf names without its place."""
    known = [item.name for item in fields(SourceConfig)]
    for section in ("train_loader", "eval_loader"):
        loader = update.get(section)
        sources = loader.get("datasets") if isinstance(loader, DictConfig) else None
        for number, source in enumerate(sources if isinstance(sources, ListConfig) else []):
            for key in source if isinstance(source, DictConfig) else []:
                if key not in known:
                    return f"unknown key {section}.datasets[{number}].{key}; known there are {', '.join(known)}"
    return None


def error_key(error: OmegaConfBaseException) -> str:
    return f"{error.full_key}: " if error.full_key else ""


def with_place(error: Exception) -> str:
    """The first line of OmegaConf's or YAML's message, with the place if YAML gives one."""
    text = first_line(error)
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        text = f"{getattr(error, 'problem', text)} (line {mark.line + 1}, column {mark.column + 1})"
    return text
