"""The world latents of a data set as the trainer reads them, and whether a run can use them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from streaming.base.world import World

from theworld.config.schema import DatasetConfig, ModelConfig
from theworld.data.cache.shard_cache import SnapshotStream
from theworld.data.cache.snapshot import Snapshot, read_snapshot
from theworld.data.latents.record import COLUMN, LatentRecord, resolve_record
from theworld.errors import UserError
from theworld.ranks import from_rank_zero

if TYPE_CHECKING:
    from streaming.base.format.base.reader import Reader

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LatentWish:
    """What latents a run can use."""

    record: LatentRecord
    required: bool
    """Refuse to compute latents while training."""


def latent_wish(model: ModelConfig, dataset: DatasetConfig, pixels_change: bool = False) -> LatentWish | None:
    """The latents that would suit this model on this data; None if it cannot use any.

    Args:
        model: the section ``model``.
        dataset: the section ``train_loader.dataset`` or ``eval_loader.dataset``.
        pixels_change: whether a transform changes pictures, which precomputed latents do not show.

    Raises:
        UserError: they are asked for, but the VAE trains, there is no world, or pictures change.
    """
    asked = dataset.world_latents
    if asked and pixels_change:
        raise UserError(
            "train_loader.dataset.world_latents: true, but transform changes the pictures that they were made of; set "
            "it to false, or give the function leaves_pixels = True if it does not touch the picture"
        )
    if pixels_change:
        return None
    if asked and not (model.enable_world and model.freeze.vae):
        raise UserError(
            "train_loader.dataset.world_latents: true, but latents are of no use where model.enable_world or "
            "model.freeze.vae is false"
        )
    if asked is False or not (model.enable_world and model.freeze.vae):
        return None
    return LatentWish(resolve_record(model, dataset.draw_bboxes, weights=False)[0], bool(asked))


def find_latents(wish: LatentWish | None, snapshot: Snapshot) -> WorldLatents | None:
    """The latents of a data set, if the run can use them and every sample has one. Called on all ranks.

    Raises:
        UserError: they are of another VAE, size or kind of picture than the run's; or they are required and some are
            missing.
    """
    if wish is None:
        return None
    beside = snapshot.world_latents is None
    found = WorldLatents(snapshot.source, beside)
    record = found.newest_record() if beside else snapshot.world_latents
    if record is None:
        if wish.required:
            raise UserError(
                f"train_loader.dataset.world_latents: true, but {snapshot.source} has none; run convert/add_latents.py"
            )
        return None
    difference = LatentRecord.read(snapshot.source, record).difference(wish.record)
    if difference is not None:
        raise UserError(
            f"{difference} ({snapshot.source}); set train_loader.dataset.world_latents=false to compute them while "
            "training, or recompute them with convert/add_latents.py"
        )
    missing = len(snapshot.generations) - len(found.covered(snapshot).generations)
    if missing:
        what = f"{missing} of {len(snapshot.generations)} generations have no world latents"
        if wish.required:
            raise UserError(f"{snapshot.source}: {what}; run convert/add_latents.py")
        log.warning(
            "%s: %s, so all are computed while training; convert/add_latents.py adds them", snapshot.source, what
        )
        return None
    return found


class WorldLatents:
    """Joins each sample with its latent.

    Args:
        source: where the data set's growth shows first, split included.
        beside: they are in ``<source>/world_latents``, and not in a column of the samples.
    """

    def __init__(self, source: str, beside: bool) -> None:
        self.source = source
        self.beside = beside
        self.snapshot: Snapshot | None = None
        self.readers: list[Reader] = []

    def newest_record(self) -> dict[str, Any] | None:
        """Read what is beside the data set now, the same on all ranks; its record, None if there is nothing."""
        self.snapshot = from_rank_zero(lambda: read_snapshot(self.source, COLUMN, may_miss=True))
        return None if self.snapshot is None else self.snapshot.world_latents

    def covered(self, snapshot: Snapshot) -> Snapshot:
        """The generations, from the first on, that have latents."""
        if not self.beside:
            return snapshot
        have = {generation.name: generation for generation in self.snapshot.generations} if self.snapshot else {}
        count = 0
        for generation in snapshot.generations:
            latents = have.get(generation.name)
            if latents is None or (latents.samples, latents.shards) != (generation.samples, generation.shards):
                break
            count += 1
        kept = snapshot.generations[:count]
        return replace(snapshot, generations=kept, shards=snapshot.shards[: sum(item.shards for item in kept)])

    def newest_covered(self, snapshot: Snapshot) -> Snapshot:
        """As :meth:`covered`, by what is beside the data set now. What has no latents yet has to wait."""
        if self.beside:
            self.newest_record()
        covered = self.covered(snapshot)
        waiting = snapshot.samples - covered.samples
        if waiting:
            log.warning(
                "%s: %d new samples have no world latents yet and wait; run convert/add_latents.py",
                self.source,
                waiting,
            )
        return covered

    def open(
        self,
        snapshot: Snapshot,
        remote: str | None,
        local: str,
        split: str | None,
        limit: int | None,
        patience: float,
    ) -> None:
        """Prepare to read the latents of ``snapshot``.

        Args:
            snapshot: of the samples; all of it is covered.
            remote, local, split, limit, patience: as for the samples (:class:`SnapshotStream`).
        """
        if not self.beside:
            return
        assert self.snapshot is not None
        folder = f"{split}/{COLUMN}" if split else COLUMN
        self.stream = SnapshotStream(self.snapshot, remote, local, folder, limit, patience)
        names = [generation.name for generation in snapshot.generations]
        places, position = {}, 0
        for generation in self.snapshot.generations:
            places[generation.name] = range(position, position + generation.shards)
            position += generation.shards
        readers = self.stream.get_shards(World.detect(), allow_unsafe_types=False)
        self.readers = [readers[place] for name in names for place in places[name]]

    def prepare(self, shard: int) -> None:
        """Have the latents of a shard's samples in the cache."""
        if self.beside:
            self.stream.prepare_shard(self.readers[shard])

    def join(self, sample: dict[str, Any], shard: int, place: int) -> dict[str, Any]:
        """The sample with its latent.

        Raises:
            UserError: the latent there is another sample's.
        """
        if not self.beside:
            return sample
        try:
            found = self.readers[shard][place]
        except FileNotFoundError:  # dropped from a full cache since it was prepared
            self.prepare(shard)
            found = self.readers[shard][place]
        if found["id"] != sample["id"]:
            raise UserError(
                f"{self.source}/{COLUMN}: has the latent of {found['id']} where {sample['id']} is expected: it is of "
                "another data set; remove it and run convert/add_latents.py"
            )
        return {**sample, COLUMN: found[COLUMN]}
