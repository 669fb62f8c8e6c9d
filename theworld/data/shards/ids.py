"""The ids of a data set by generation, and those that its JSON names, for a run to be held against."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from theworld.data.entries.check_entry import BadEntry, held_out_below, id_key, image_id
from theworld.data.entries.columns import ABOUT, columns_with, of_entry
from theworld.data.entries.formats.entry_format import EntryFormat
from theworld.data.entries.read_source import read_source
from theworld.data.entries.repeated_ids import Suffixes
from theworld.data.shards.dataset import IDS, MANIFEST, generation_ids
from theworld.data.shards.mds import INDEX, read_ids
from theworld.data.shards.remote_data_set import read_file
from theworld.errors import UserError


@dataclass(frozen=True)
class GenerationOfIds:
    """A generation's name, its fingerprint if it has one, and a way to read its ids."""

    name: str
    fingerprint: str | None
    ids: Callable[[], Iterable[str]]


def data_set_ids(where: str) -> list[GenerationOfIds]:
    """The generations of a data set, in order; one made by other tools is one generation, "all".

    Args:
        where: a folder or a URL.

    Raises:
        UserError: there is no data set, or it cannot be read.
    """
    text = read_file(where, MANIFEST)
    if text is not None:
        entries = parse(f"{where}/{MANIFEST}", text)["generations"]
        return [GenerationOfIds(one["name"], one["fingerprint"], partial(ids_of, where, one)) for one in entries]
    text = read_file(where, INDEX)
    if text is None:
        raise UserError(f"{where}: no {MANIFEST} or {INDEX}; name the data set that convert/to_mds.py wrote")
    if "://" in where:
        raise UserError(f"{where}: a data set of other tools, whose ids stand in its shards only")
    shards = parse(f"{where}/{INDEX}", text)["shards"]
    paths = [Path(where) / shard["raw_data"]["basename"] for shard in shards]
    return [GenerationOfIds("all", None, lambda: (name for path in paths for name in read_ids(path)))]


def ids_of(where: str, generation: dict[str, Any]) -> list[str]:
    """The ids of one generation.

    Raises:
        UserError: they cannot be read, or are not as many as the manifest says.
    """
    name = generation["name"]
    if "://" not in where:
        ids = generation_ids(Path(where) / name)
    else:
        ids = (read_file(f"{where.rstrip('/')}/{name}", IDS) or "").split("\n")[:-1]
    if len(ids) != generation["samples"]:
        raise UserError(f"{where}/{name}: {len(ids)} ids, but {MANIFEST} says {generation['samples']} samples")
    return ids


def parse(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{name}: is damaged ({error})") from error


def ids_in_json(path: Path, holdout: float, form: EntryFormat | None = None) -> Iterator[str]:
    """Ids that the conversations name, those of the held-out share left out.

    Args:
        path: the file or folder of ``convert.json``.
        holdout: ``convert.holdout``.
        form: reads its entries; None: OpenSpatialDataset's.
    """
    threshold = held_out_below(holdout)
    if form is not None and form.by_path:
        yield from (name for name in ids_by_format(path, form) if id_key(name) >= threshold)
        return
    for entry in read_source(path):
        filename = entry.get("filename") if isinstance(entry, dict) else None
        if isinstance(filename, str) and id_key(image_id(filename)) >= threshold:
            yield image_id(filename)


def ids_by_format(path: Path, form: EntryFormat) -> Iterator[str]:
    """The samples' ids as the converter names them, and the ids of entries that cannot become samples, if they have
    one."""
    columns = of_entry(columns_with(**{ABOUT: True}))
    seen: set[int] = set()
    suffixes = Suffixes()
    for raw in read_source(path):
        try:
            name = form.parse(raw, columns, keep_masks=False).id
        except BadEntry as bad:
            if bad.id:
                yield bad.id
            continue
        if id_key(name) in seen:
            name = suffixes.next_name(name)
        seen.add(id_key(name))
        yield name
