"""Where everything stands, from what is on disk; nothing is changed and the JSON is not read for it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from theworld.config.schema import Config
from theworld.data.entries.catalog import Catalog
from theworld.data.entries.downloaded import MISSING
from theworld.data.entries.folder_index import NOT_LOOKED_AT
from theworld.data.entries.formats.format_table import AUTO, make_format
from theworld.data.entries.images import ImageTable, positions
from theworld.data.entries.scan import FOLDER_INDEX, PATH_INDEX, scan_images
from theworld.data.entries.source import open_source
from theworld.data.entries.which_format import known_format
from theworld.data.shards.convert_settings import images_of_entry
from theworld.data.shards.dataset import MANIFEST, DataSet, describe_generation, read_shards
from theworld.data.shards.left_to_write import entries_left, files_needed, images_by_name, with_picture_sets
from theworld.data.shards.remote_data_set import staging_folder
from theworld.download.download_settings import Settings, check_settings
from theworld.download.state import State
from theworld.download.wanted import known_wanted
from theworld.errors import UserError
from theworld.files import check_private, read_json

CONVERTER = ".convert"


@dataclass
class Status:
    """Lines of a table, by section."""

    sections: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, section: str, name: str, value: str) -> None:
        self.sections.setdefault(section, []).append((name, value))

    def table(self) -> str:
        width = max(len(name) for rows in self.sections.values() for name, _ in rows)
        lines = []
        for section, rows in self.sections.items():
            lines += [section, *(f"  {name:<{width}}  {value}" for name, value in rows)]
        return "\n".join(lines)


def status(config: Config) -> Status:
    """Images, samples, JSON, disk, and what the next runs would pick up.

    Raises:
        UserError: bad settings, or a folder that cannot be read.
    """
    settings = check_settings(config)
    result = Status()
    out = settings.convert.out
    root = staging_folder(out) if "://" in out else Path(out)
    if "://" in out:
        check_private(root)
    state = State(settings.images, settings.state)
    data_sets = [DataSet(root), DataSet(root.with_name(f"{root.name}-eval"))]
    catalog = known_catalog(settings, root, result)
    scan = known_images(settings, root, catalog, data_sets)
    wanted, finished = wanted_keys(settings, state, catalog)
    missing = state.missing_keys()
    show_images(result, settings, scan, wanted, missing, finished)
    show_samples(result, out, data_sets)
    show_next(result, settings, scan, wanted, missing, catalog, data_sets)
    show_disk(result, settings, root)
    return result


def in_bytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def known_images(settings: Settings, root: Path, catalog: Catalog | None, data_sets: list[DataSet]) -> ImageTable:
    """What is in the image folder; only files that may still become samples are looked at."""
    if not settings.images.is_dir():
        none = np.zeros(0, np.int64)
        return ImageTable(np.zeros(0, np.uint64), none, none, none, none, b"")

    def needed(keys: np.ndarray) -> np.ndarray:
        return files_needed(keys, catalog, all_written(data_sets), data_sets[0].rejected_images())

    by_path = catalog is not None and catalog.form.by_path
    index = root / CONVERTER / (PATH_INDEX if by_path else FOLDER_INDEX)
    folders = settings.convert.image_folders
    return scan_images(settings.images, folders, index=index, needed=needed, keep_index=False, by_path=by_path)


def all_written(data_sets: list[DataSet]) -> np.ndarray:
    """(n,) uint64, sorted: keys of the samples."""
    return np.sort(np.concatenate([data_set.written_keys() for data_set in data_sets]))


def known_catalog(settings: Settings, root: Path, result: Status) -> Catalog | None:
    """The converter's index of the JSON, if it has read it; shows the JSON's figures."""
    try:
        source = open_source(settings.convert.json, settings.convert.json_cache)
    except (UserError, OSError) as error:
        result.add("JSON", settings.convert.json, f"not to be had: {error}")
        return None
    convert, state = settings.convert, root / CONVERTER
    size = in_bytes(source.identity["bytes"])
    name = convert.format if convert.format != AUTO else known_format(source.identity, state, convert.keep_masks)
    counts = images_of_entry(convert.world_latents, convert.most_images)
    form = make_format(name, convert.boxes, counts) if name is not None else None
    catalog = Catalog(state, source.identity, convert.keep_masks, form)
    if name is None or not catalog.complete:
        result.add("JSON", settings.convert.json, f"{size}, not read by the converter yet")
        return None
    summary = catalog.summary
    result.add("JSON", settings.convert.json, f"{size}, {summary.entries:,} entries, {summary.good:,} usable")
    if summary.broken:
        result.add("JSON", "damaged", summary.broken)
    return catalog


def wanted_keys(settings: Settings, state: State, catalog: Catalog | None) -> tuple[np.ndarray | None, bool]:
    """(n,) uint64: keys of the wanted ids, from whoever has read the JSON already, None if nobody has.

    Returns:
        The keys, and whether the latest download of just these was finished.
    """
    try:
        wanted = known_wanted(settings)
    except UserError:  # the Hub is out of reach; the JSON's own line says so
        wanted = None
    if wanted is not None:
        return wanted.keys, state.finished(wanted.digest)
    return None if catalog is None else catalog.file_keys(), False


def show_images(
    result: Status,
    settings: Settings,
    scan: ImageTable,
    wanted: np.ndarray | None,
    missing: np.ndarray,
    finished: bool,
) -> None:
    section = f"images in {settings.images}"
    looked_at = scan.sizes != NOT_LOOKED_AT
    size = f"{'' if looked_at.all() else 'at least '}{in_bytes(int(scan.sizes[looked_at].sum()))}"
    if wanted is None:
        result.add(section, "wanted", "unknown until the downloader or the converter has read the ids")
        result.add(section, "there", f"{len(scan):,}, {size}")
    else:
        _, found = positions(scan.keys, wanted)
        share = f"{found.mean():.1%}" if len(wanted) else "none"
        result.add(section, "wanted", f"{len(wanted):,}")
        result.add(section, "there", f"{int(found.sum()):,} ({share}), {size}")
        if len(scan) > found.sum():
            result.add(section, "there, but not wanted", f"{len(scan) - int(found.sum()):,}")
    result.add(section, "missing for good", f"{len(missing):,}" + (f", see {MISSING}" if len(missing) else ""))
    if settings.spool.is_dir() and len(spooled := scan_images(settings.spool)):
        result.add(section, "waiting to be converted", f"{len(spooled):,}, {in_bytes(int(spooled.sizes.sum()))}")
    result.add(section, "latest download", "finished" if finished else "not finished, or at work")


def show_samples(result: Status, out: str, data_sets: list[DataSet]) -> None:
    for data_set, place in zip(data_sets, (out, f"{out.rstrip('/')}-eval"), strict=True):
        section = f"samples in {place}"
        generations = [describe_generation(folder, read_shards(folder)) for folder in data_set.generations()]
        if not generations:
            if place == out:
                result.add(section, "converted", "none yet" + (" by this machine" if "://" in out else ""))
            continue
        samples = sum(generation["samples"] for generation in generations)
        size = sum(generation["bytes"] for generation in generations)
        result.add(section, "converted", f"{samples:,} in {len(generations)} generations, {in_bytes(size)}")
        for generation in generations[-5:]:
            values = f"{generation['samples']:,} samples, {generation['shards']:,} shards"
            result.add(section, generation["name"], f"{values}, {in_bytes(generation['bytes'])}")
        rejected = len(data_set.rejected_images())
        if rejected:
            result.add(section, "rejected images", f"{rejected:,}, see rejected.jsonl")
        manifest = read_json(data_set.root / MANIFEST)
        if manifest is None or len(manifest["generations"]) != len(generations):
            result.add(section, "root index", "behind its generations; the next conversion mends it")


def show_next(
    result: Status,
    settings: Settings,
    scan: ImageTable,
    wanted: np.ndarray | None,
    missing: np.ndarray,
    catalog: Catalog | None,
    data_sets: list[DataSet],
) -> None:
    """What the next download and the next conversion would take up."""
    section = "the next run picks up"
    written = all_written(data_sets)
    if wanted is not None:
        left = ~positions(scan.keys, wanted)[1]
        if not settings.retry_missing:
            left &= ~positions(missing, wanted)[1]
        if settings.to == "mds":
            left &= ~positions(written, wanted)[1]
        result.add(section, "download", f"{int(left.sum()):,} images")
    rejected = data_sets[0].rejected_images()
    if catalog is not None and catalog.form.by_path:
        new, _ = entries_left(catalog, with_picture_sets(scan, catalog, written), written, rejected)
    else:
        new = images_by_name(scan, written, rejected)
        named = wanted if catalog is None else catalog.keys()
        if named is not None:
            new &= positions(np.sort(named), scan.keys)[1]
    result.add(section, "conversion", f"{int(new.sum()):,} images")


def show_disk(result: Status, settings: Settings, root: Path) -> None:
    places = {"images": settings.images, "samples": root}
    if settings.convert.json_cache:
        places["JSON cache"] = Path(settings.convert.json_cache)
    for name, place in places.items():
        there = place
        while not there.exists():
            there = there.absolute().parent
        usage = shutil.disk_usage(there)
        result.add("disk", name, f"{in_bytes(usage.free)} of {in_bytes(usage.total)} free at {place}")
    state = root / CONVERTER
    if state.is_dir():
        held = sum(path.stat().st_size for path in state.rglob("*") if path.is_file())
        result.add("disk", "converter's index of the JSON", f"{in_bytes(held)} in {state}")
