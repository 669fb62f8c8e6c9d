"""The data sets that a loader mixes, as the YAML names them (``train_loader.datasets``)."""

from __future__ import annotations

import re
from pathlib import Path

from theworld.config.data_places import RULES, given_rule
from theworld.config.schema import LoaderConfig, SourceConfig
from theworld.errors import UserError

NAME = re.compile(r"[A-Za-z0-9._-]+")


def check_sources(section: str, loader: LoaderConfig, known: bool = False) -> None:
    """Names, places and shares.

    Args:
        section: ``train_loader`` or ``eval_loader``.
        loader: of it.
        known: whether the run has read them before, so that they may be out of reach now.

    Raises:
        UserError: the key, and what is wrong with it.
    """
    sources = loader.datasets or []
    key = f"{section}.datasets"
    if not sources:
        raise UserError(f"{key}: empty; name data sets, or null for the one in {section}.dataset")
    for name in ("remote", "split"):
        if getattr(loader.dataset, name) is not None:
            raise UserError(f"{section}.dataset.{name}: is set beside {key}; set it to null, each data set has its own")
    if isinstance(loader.expected_samples, int):
        raise UserError(
            f"{section}.expected_samples: {loader.expected_samples}, but with {key} it is auto or null: what a pass "
            "has follows from what each data set has"
        )
    names, places = [source.name for source in sources], [place_of(source) for source in sources]
    for number, source in enumerate(sources):
        where = f"{key}[{number}]"
        if not NAME.fullmatch(source.name):
            raise UserError(f"{where}.name: {source.name!r}: expected letters, digits, dots, dashes and underscores")
        if source.name in names[:number]:
            raise UserError(f"{where}.name: {source.name} is the name of another one as well")
        if places[number] in places[:number]:
            other = names[places.index(places[number])]
            raise UserError(f"{where}: {source.name} is the same data set as {other}; repeat gives samples more often")
        check_place(where, source, loader, known)
        check_share(where, source, section)
    rules = {given_rule(source) for source in sources}
    if len(rules) > 1:
        raise UserError(f"{key}: {' and '.join(sorted(rules))} are mixed; give all of them one of {', '.join(RULES)}")


def place_of(source: SourceConfig) -> str:
    """Where a source lies, however it is written."""
    where = source.remote or source.local or ""
    return f"{where if '://' in where else Path(where).absolute()}/{source.split or ''}".rstrip("/")


def check_place(where: str, source: SourceConfig, loader: LoaderConfig, known: bool) -> None:
    if (source.remote is None) == (source.local is None):
        raise UserError(f"{where}: {source.name}: set remote, or local where it is to be read in place; one of the two")
    origin = source.remote or source.local or ""
    if not known and "://" not in origin and not Path(origin).is_dir():
        kind = "remote" if source.remote else "local"
        raise UserError(f"{where}.{kind}: no folder {origin}; run convert/to_mds.py first")
    if source.remote is None and loader.dataset.cache_limit is not None:
        raise UserError(f"{where}: {source.name} is read in place, where cache_limit has nothing to do; set remote")
    if loader.dataset.local and Path(origin).absolute() == Path(loader.dataset.local).absolute():
        raise UserError(f"{where}: {source.name} lies in the folder of the cache, dataset.local; set another one there")


def check_share(where: str, source: SourceConfig, section: str) -> None:
    given = [rule for rule in RULES if getattr(source, rule) is not None]
    if len(given) > 1:
        raise UserError(f"{where}: {source.name} has {' and '.join(given)}; give one of them")
    if given and section != "train_loader":
        raise UserError(f"{where}.{given[0]}: an evaluation takes every sample once; leave it out")
    for rule in given:
        value = getattr(source, rule)
        if not 0 < value < float("inf"):
            raise UserError(
                f"{where}.{rule}: {value}: expected a number above 0; leave out what is not to be trained on"
            )
