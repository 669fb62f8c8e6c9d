"""Raw files to generations of MDS shards: each run writes only what is new."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from theworld.config.schema import ConvertConfig
from theworld.data.entries.catalog import Catalog
from theworld.data.entries.check_entry import id_key
from theworld.data.entries.downloaded import missing_keys
from theworld.data.entries.formats.entry_format import BETWEEN, OPENSPATIAL
from theworld.data.entries.images import ImageTable, positions
from theworld.data.entries.picture_spool import PictureSpool
from theworld.data.entries.scan import FOLDER_INDEX, PATH_INDEX, scan_images
from theworld.data.entries.source import JsonSource, open_source
from theworld.data.entries.which_format import which_format
from theworld.data.latents.column import LatentColumn
from theworld.data.latents.record import COLUMN, LatentRecord
from theworld.data.shards.check_before import check_before
from theworld.data.shards.convert_report import NO_IMAGE, ConvertProgress, Report
from theworld.data.shards.convert_settings import Settings, check_settings
from theworld.data.shards.dataset import DataSet
from theworld.data.shards.left_to_write import (
    entries_left,
    files_needed,
    image_keys,
    images_by_name,
    with_picture_sets,
)
from theworld.data.shards.lock import exclusive_lock
from theworld.data.shards.matches import match_entries
from theworld.data.shards.pending import Pending
from theworld.data.shards.pool import ShardPool
from theworld.data.shards.remote_data_set import RemoteDataSet, staging_folder, upload_finished
from theworld.data.shards.shard_plan import EVALUATION, NOTHING, TRAIN, ShardJob, plan_shards
from theworld.data.shards.write_shard import ShardWriter
from theworld.errors import UserError
from theworld.files import make_private, remove_temporaries
from theworld.interrupts import stop_on_signal

STATE = ".convert"
PICTURES = "pictures"
"""Folder in it for those that come inside of entries."""
MOST_GONE = 0.5
"""Share of the samples that a new state of the conversations may lack; beyond it they are others."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger(__name__)


def convert(config: ConvertConfig, latents: LatentColumn | None = None) -> Report:
    """Convert every image that is there and not yet written; see the ``convert`` keys of the schema.

    Args:
        config: the section ``convert``.
        latents: makes the column ``world_latents`` (:func:`theworld.data.latents.column.latent_column`); needed if
            ``config.world_latents`` is true.

    Killed at any moment and run again, it goes on where it was and the result is the same.

    Raises:
        UserError: bad settings or input, another converter at work, a full disk, a killed worker.
    """
    if config.world_latents and latents is None:
        raise ValueError("convert.world_latents is true, but no latent column was given")
    settings = check_settings(config, latents)
    out = staging_folder(settings.out) if settings.remote else Path(os.path.abspath(settings.out))
    with stop_on_signal():
        try:
            if settings.remote:
                make_private(out)
            (out / STATE).mkdir(parents=True, exist_ok=True)
            with exclusive_lock(out / STATE / "lock", str(out)):
                return Conversion(settings, out).run()
        except OSError as error:
            logger.debug("while converting", exc_info=error)
            raise UserError(explain_os_error(error, out)) from error
        except KeyboardInterrupt:
            logger.warning("stopped; finished shards are kept, the same command goes on")
            raise


def no_images(folder: Path, scan: ImageTable) -> str:
    """The line for an image folder of which nothing is taken."""
    if not scan.passed_over:
        return f"convert.images: {folder}: no .jpg, .jpeg, .png or .webp file in it or below it"
    left = "; ".join(f"{one.count} files {one.reason}, such as {one.example}" for one in scan.passed_over)
    return (
        f"convert.images: {folder}: no file of it is taken: {left}; if they are the photos, name their folders, best "
        'first, in convert.image_folders ("*" is all)'
    )


def explain_os_error(error: OSError, out: Path) -> str:
    """The line for what the operating system refused."""
    if error.errno in DISK_FULL:
        return f"convert.out: {out}: the disk is full; finished shards are kept, free some space and run again"
    where = error.filename or f"convert.out: {out}"
    return f"{where}: {error.strerror or error}; finished shards are kept, run again once that is mended"


class Conversion:
    """One run of the converter on an output folder that it has locked."""

    def __init__(self, settings: Settings, out: Path) -> None:
        self.settings = settings
        self.train = DataSet(out)
        self.evaluation = DataSet(out.with_name(f"{out.name}-eval"))
        self.remotes = (
            {TRAIN: RemoteDataSet(settings.out, self.train), EVALUATION: self._remote_evaluation()}
            if settings.remote
            else {}
        )
        self.state = out / STATE
        self.source: JsonSource = open_source(settings.json, settings.json_cache)
        keep_masks = settings.format.keep_masks
        counts = settings.images_of_entry
        form = which_format(settings.form, settings.boxes, self.source, self.state, keep_masks, counts)
        inside = settings.images is None and form.by_path
        spool = PictureSpool(self.state / PICTURES, counts[1]) if inside else None
        if settings.images is None and spool is None:
            raise UserError(f"convert.images is not set; entries of format {form.name} have their images in a folder")
        self.images = settings.images or self.state / PICTURES
        self.layout = replace(settings.format, about=form.by_path)
        self.catalog = Catalog(self.state, self.source.identity, keep_masks, form, spool)
        self.report = Report()
        self.tried = np.zeros(0, np.uint64)
        self.example_file = "none"

    def _remote_evaluation(self) -> RemoteDataSet:
        return RemoteDataSet(self.settings.evaluation_out, self.evaluation)

    def run(self) -> Report:
        """Finish what an earlier run began, then convert what is new; the image folder is listed once."""
        started = time.monotonic()
        for remote in self.remotes.values():
            remote.pull()
        for data_set in self._data_sets():
            data_set.manifest()  # a lost generation stops here, before anything is written
        for folder in (self.train.root, self.evaluation.root, self.state):
            remove_temporaries(folder)
        self.report.before = self.train.samples() + self.evaluation.samples()
        pending = self._find_pending()
        if pending is not None and pending.ready:
            self._publish(pending)
            pending = None
        self._check_lasting()
        by_path = self.catalog.form.by_path
        if by_path:
            self.catalog.read(self.source.fetch)
            self.layout = replace(self.layout, several=bool(len(self.catalog.sets())))
        if self.settings.images is None:
            self.images.mkdir(exist_ok=True)
        scan = scan_images(
            self.images,
            self.settings.image_folders,
            index=self.state / (PATH_INDEX if by_path else FOLDER_INDEX),
            needed=self._needed,
            by_path=by_path,
        )
        self.report.scanned(scan, self.images)
        if len(scan):
            self.example_file = scan.path(0)
        if by_path:
            scan = with_picture_sets(scan, self.catalog, self._written_keys())
        if not len(scan) and not self.report.before:
            raise UserError(no_images(self.images, scan))
        if pending is not None:
            self._write(pending)
        while (pending := self._begin(scan)) is not None:
            self._write(pending)
            if self.settings.num_samples is None:
                break  # all of the scan has been tried; with a number, others take the place of bad images
        self._finish(scan)
        self.report.seconds = time.monotonic() - started
        return self.report

    def _check_lasting(self) -> None:
        """Settings that would make a data set inconsistent cannot change after its first generation."""
        manifest = self.train.manifest()
        begun = dict(manifest)
        if begun.get(COLUMN):  # a record of an earlier release may lack what was the same then for all
            begun[COLUMN] = LatentRecord.read(str(self.train.root), begun[COLUMN]).to_json()
        begun.setdefault("format", OPENSPATIAL)
        for key, value in {"format": self.catalog.form.name, **self._lasting()}.items():
            if manifest.get("generations") and begun.get(key) != value:
                hint = "; convert/add_latents.py adds latents to what is there" if key == COLUMN else ""
                raise UserError(
                    f"convert.{key}: {value}, but {self.train.root} was begun with {begun.get(key)}; "
                    f"keep that, or convert into another folder{hint}"
                )

    def _lasting(self) -> dict[str, Any]:
        """Settings that the manifest keeps; of the format only where it is not the first one that there was."""
        form = self.catalog.form
        own = {"format": form.name, "boxes": self.settings.boxes} if form.by_path else {}
        return {**self.settings.lasting(), **own}

    def _snapshot(self) -> dict[str, Any]:
        return {"planning": {**self.settings.planning(), **self._lasting()}, "source": self.catalog.identity}

    def _find_pending(self) -> Pending | None:
        """What a killed run left, if it still applies."""
        pending = Pending.find(self.state)
        if pending is None:
            return None
        if not pending.fits(self.train, self.evaluation):  # another machine has added to a remote data set
            logger.warning("an unfinished generation is dropped: one of its name has been written elsewhere")
            pending.discard()
            return None
        if pending.ready:
            return pending
        now = self._snapshot()
        begun = pending.snapshot["planning"]
        changed = sorted(key for key, value in now["planning"].items() if begun.get(key) != value)
        if pending.snapshot["source"] != now["source"]:
            changed.append("json")
        if not changed:
            logger.info("going on with %s, which an earlier run began", pending.snapshot["targets"][TRAIN])
            return pending
        keys = ", ".join(f"convert.{key}" for key in changed)
        logger.warning("an unfinished generation was begun with other %s: it is dropped and planned again", keys)
        pending.discard()
        return None

    def _begin(self, scan: ImageTable) -> Pending | None:
        """Plan a generation of what is new; None if nothing is."""
        limit = None
        if self.settings.num_samples is not None:
            limit = self.settings.num_samples - self.train.samples() - self.evaluation.samples()
            if limit <= 0:
                return None
        wanted, skip = self._wanted(scan)
        images = scan.select(wanted)
        if not len(images) or (self.catalog.complete and not self._any_entry(images)):
            return None
        targets = {TRAIN: self.train.next_name(), EVALUATION: self.evaluation.next_name()}
        return Pending.begin(self.state, {**self._snapshot(), "targets": targets, "limit": limit}, images, skip)

    def _needed(self, keys: np.ndarray) -> np.ndarray:
        """(n,) bool: keys (n,) uint64 whose files are to be looked at: not written, and named by the JSON."""
        return files_needed(keys, self.catalog, self._written_keys(), self.train.rejected_images())

    def _wanted(self, scan: ImageTable) -> tuple[np.ndarray, np.ndarray]:
        """(n,) bool: images that are not written, not tried by this run, not known to be bad; and (m,) uint64, sorted:
        keys of samples that are to be passed over although their image is among these."""
        done = np.sort(np.concatenate([self._written_keys(), self.tried]))
        rejected = self.train.rejected_images()
        if not self.catalog.form.by_path:
            return images_by_name(scan, done, rejected), NOTHING
        wanted, skip = entries_left(self.catalog, scan, done, rejected)
        return wanted, skip

    def _written_keys(self) -> np.ndarray:
        """(samples,) uint64, sorted: ids in either data set."""
        return np.sort(np.concatenate([self.train.written_keys(), self.evaluation.written_keys()]))

    def _any_entry(self, images: ImageTable) -> bool:
        """Whether some entry names one of the images."""
        return any(positions(images.keys, block.images)[1].any() for block in self.catalog.blocks(self.source.fetch))

    def _write(self, pending: Pending) -> None:
        """Write the shards of a generation that are not finished yet, then publish it."""
        if shutil.disk_usage(self.state).free < int(pending.images.sizes.sum()):
            logger.warning("%s: less space than the images take; it may not be enough", self.train.root)
        layout, limit = self.layout, pending.snapshot["limit"]
        most = self.catalog.summary.good if self.catalog.form.by_path else len(pending.images)
        progress = ConvertProgress(min(most, limit or most))
        blocks = self.catalog.blocks(self.source.fetch, progress.read)
        jobs = plan_shards(blocks, pending.images, layout, self.settings.holdout, limit, pending.skip)
        decode = self.settings.verify == "decode"
        writer = ShardWriter(
            self.images,
            self.catalog.records,
            pending.folder,
            layout,
            decode,
            self.settings.rescale_boxes,
            self.settings.latents,
            self.settings.most_pixels,
        )
        pool = ShardPool(writer, self.settings.workers, progress.tick)
        with closing(progress), closing(pool.run(jobs)) as finished:
            shards: Iterator[tuple[ShardJob, dict[str, Any]]] = finished
            if self.remotes:
                shards = upload_finished(finished, writer, self.remotes, pending.snapshot["targets"])
            for _, fragment in shards:
                progress.wrote(len(fragment["ids"]), fragment["image_bytes"])
                self.report.frames.add(fragment.get("frames", {}))
        self.report.bytes += progress.bytes
        self._check_source()
        pending.close(self.catalog.summary.entries)
        self._publish(pending)

    def _check_source(self) -> None:
        """What is written must be of this file: of two files the counts would be those of the last one alone, and what
        is complete could not be told. A new state of the same file may lack a few; one that is cut short says so by
        itself.

        Raises:
            UserError: most samples that are there have no entry in it.
        """
        keys = self.catalog.keys()
        if keys is None or self.catalog.summary.broken:
            return
        table = np.sort(keys)
        for data_set in self._data_sets():
            written = data_set.written_keys()
            strange = written[~positions(table, written)[1]]
            if len(strange):  # an entry that an earlier release took is of this file all the same
                strange = np.setdiff1d(strange, [id_key(line["id"]) for line in self.catalog.bad_entries()])
            if not len(strange):
                continue
            lacks = (
                f"convert.json: {self.settings.json} lacks {len(strange):,} of the {len(written):,} samples of "
                f"{data_set.root}, such as {data_set.id_of(int(strange[0]))}"
            )
            if len(strange) > MOST_GONE * len(written):
                raise UserError(f"{lacks}: it is another file than that of before; convert it into another convert.out")
            logger.warning("%s; they stay", lacks)

    def _publish(self, pending: Pending) -> None:
        ready = pending.ready
        assert ready is not None
        rejected = pending.merge_rejected(self.train.rejected_images())
        self.train.write_rejected(self.catalog.bad_entries(), rejected)
        pending.publish(self.train, self.evaluation)
        self.report.written += sum(ready["samples"].values())
        self.report.held_out += ready["samples"][EVALUATION]
        self.report.generations += [
            f"{Path(url).name}/{pending.snapshot['targets'][part]}"
            for part, url in ((TRAIN, self.settings.out), (EVALUATION, self.settings.evaluation_out))
            if ready["samples"][part]
        ]
        bad = [id_key(line["id"]) for line in ready["rejected"]]
        self.tried = np.concatenate([self.tried, np.array(bad, np.uint64)])
        pending.discard()

    def _finish(self, scan: ImageTable) -> None:
        """Root files in line with the generations, and the counts."""
        self.catalog.read(self.source.fetch)  # nothing was wanted of it, but its entries are to be counted
        self._check_source()
        summary = self.catalog.summary
        self.catalog.require_entries()
        rejected = self._rejected_images(scan)
        self.train.write_rejected(self.catalog.bad_entries(), rejected)
        blocks = self.catalog.blocks(self.source.fetch)
        missing = self.catalog.sets().with_lost(missing_keys(self.images))
        matches = match_entries(
            blocks, scan.keys, self._written_keys(), rejected.values(), missing, self.settings.holdout
        )
        if self.settings.num_samples is not None:
            samples = {TRAIN: self.train.samples(), EVALUATION: self.evaluation.samples()}
            matches.cap(self.settings.num_samples, samples)
        self.train.refresh(self._lasting(), summary.entries, matches.to_be[TRAIN])
        if self.evaluation.generations():
            self.evaluation.refresh(self._lasting(), summary.entries, matches.to_be[EVALUATION])
        self.train.remember_source(self.images, self.settings.image_folders)
        for remote in self.remotes.values():
            remote.push()
        if not matches.matched:
            raise UserError(
                f"no entry of {self.settings.json} has its image in {self.images}: entries name images "
                f"like {summary.example.replace(BETWEEN, ' and ')}, the folder has files like {self.example_file}"
            )
        left_out = Counter(summary.reasons)
        left_out.update(line["reason"] for line in rejected.values())
        left_out[NO_IMAGE] = summary.good - matches.matched
        if self.settings.num_samples is not None:
            left_out["beyond convert.num_samples"] = max(0, matches.matched - matches.written - len(rejected))
        for data_set in self._data_sets():
            found = check_before(data_set, self.state, self.catalog, self.catalog.blocks(self.source.fetch))
            self.report.frames.add_before(found)
        self.report.frames.warn(self.report.written)
        self.report.entries, self.report.left_out, self.report.broken = summary.entries, left_out, summary.broken
        self.report.format, self.report.suffixed = self.catalog.form.name, summary.suffixed
        self.report.several, self.report.text_alone = self.catalog.counts_of_images()

    def _data_sets(self) -> tuple[DataSet, DataSet]:
        return self.train, self.evaluation

    def _rejected_images(self, scan: ImageTable) -> dict[str, dict[str, Any]]:
        """Rejected images that are still there: one that went away is an image not there yet."""
        lines = self.train.rejected_images()
        _, there = positions(scan.keys, image_keys(lines))
        return dict(compress(lines.items(), there))
