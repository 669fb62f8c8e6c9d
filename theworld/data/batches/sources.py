"""The data sets that a pass reads, opened together: samples by source and number, shards fetched ahead."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from composer.utils import dist
from streaming import StreamingDataset

from theworld.data.batches.mixture import Share
from theworld.data.cache.attempt_folder import new_name
from theworld.data.cache.latent_store import LatentWish, WorldLatents, find_latents
from theworld.data.cache.shard_cache import SnapshotStream
from theworld.data.cache.shared_memory import one_opening_at_a_time, record_segments
from theworld.data.cache.snapshot import Snapshot, mix, read_snapshot
from theworld.data.cache.space import check_capacity
from theworld.data.cache.streaming_internals import open_shards, release_segments, segments_number
from theworld.errors import NotNow, UserError
from theworld.patience import patiently
from theworld.ranks import from_rank_zero, raise_on_all_ranks

log = logging.getLogger(__name__)


WORLD = "world"
"""What :meth:`Sources.sample` says beside a sample's columns if it is to have no world tokens: False."""
SINGLE = Share("")
"""All of the only data set."""


@dataclass(frozen=True)
class Source:
    """Where a data set lies and how this process reads it."""

    remote: str | None
    local: str
    """The data set itself if there is no remote; else the attempt's folder of names for the cache."""
    split: str | None = None
    cache_limit: int | None = None
    """Bytes of shards kept in the cache; None: what fits the free disk."""
    patience: float = 600.0
    """Seconds to try again where something cannot be reached."""
    known: bool = False
    """Whether the run has read it before: what is not there then is out of reach, not wrong."""
    share: Share = SINGLE
    """What passes take of it; its name is empty where it is the only one."""
    world: bool = True
    """Whether its samples have world tokens."""

    @property
    def name(self) -> str:
        return self.share.name

    @property
    def origin(self) -> str:
        """Where growth shows first."""
        return self.remote if self.remote is not None else self.local

    def place(self) -> dict[str, Any]:
        """Where it lies, for a checkpoint, and what is to be known of it if the configuration has it no more."""
        where = {"remote": self.remote, "local": self.local if self.remote is None else None, "split": self.split}
        return where if self.world else {**where, WORLD: False}


class Sources:
    """Data sets opened as one. All methods run on all ranks at once, but those that read.

    Args:
        batch_of_rank: samples of a rank's batch.
        wish: world latents that the run can use, if all data sets have them.
    """

    def __init__(self, batch_of_rank: int, wish: LatentWish | None = None) -> None:
        self.batch_of_rank = batch_of_rank
        self.wish = wish
        self.members: tuple[Source, ...] = ()
        self.snapshots: tuple[Snapshot, ...] = ()
        self.latents: dict[str, WorldLatents] | None = None
        """By source; None: the run computes them. Settled when data sets are opened for the first time."""
        self.times_opened = 0
        self.small_cache: int | None = None
        """Bytes that the node's cache holds, on its first rank, if it cannot hold all."""
        self._reader: StreamingDataset | None = None

    # ---- what is there

    def newest(self, members: Sequence[Source], patience: float | None = None) -> tuple[Snapshot, ...]:
        """The snapshots that all ranks agree on: rank 0 reads them.

        Args:
            members: the data sets.
            patience: seconds, as for :class:`Source`; None: the source's.

        Raises:
            UserError: there is no data set, or one without samples.
            NotNow: one cannot be reached.
        """
        return tuple(self._newest(member, member.patience if patience is None else patience) for member in members)

    def _newest(self, member: Source, patience: float) -> Snapshot:
        found = from_rank_zero(lambda: patiently(lambda: self._read_snapshot(member), member.origin, patience))
        if found.samples == 0:
            raise UserError(f"{member.origin}: the data set has no samples; run convert/to_mds.py")
        if self.latents is None or member.name not in self.latents:
            return found
        return self.latents[member.name].newest_covered(found)

    def _read_snapshot(self, member: Source) -> Snapshot:
        try:
            return read_snapshot(member.origin, member.split)
        except UserError as error:
            if member.known or member.name in {one.name for one in self.members}:
                raise NotNow(str(error)) from error
            raise

    def renew(self, snapshots: Sequence[Snapshot]) -> None:
        """What is open, as it is described now: what the data sets say of their JSON may have changed."""
        self.snapshots = tuple(snapshots)
        self.snapshot = mix([member.name for member in self.members], snapshots)

    @property
    def samples(self) -> list[int]:
        """Of each source."""
        return [snapshot.samples for snapshot in self.snapshots]

    @property
    def origin(self) -> str:
        """Names them in a message."""
        return ", ".join(member.origin for member in self.members)

    # ---- opening

    def open(self, members: Sequence[Source], snapshots: Sequence[Snapshot]) -> None:
        """Open these data sets instead of those that are open.

        Raises:
            UserError: the cache is too small; world latents cannot be used.
        """
        latents = self._find_latents(members, snapshots)
        leader = dist.get_local_rank() == 0
        local = [self._new_local(member, leader) for member in members]
        self._check_room(members, snapshots, local, leader)
        with one_opening_at_a_time(leader):
            self.close()
            dist.barrier()
            self.streams = [
                SnapshotStream(snapshot, member.remote, folder, member.split, member.cache_limit, member.patience)
                for member, snapshot, folder in zip(members, snapshots, local, strict=True)
            ]
            self._reader = open_shards(streams=self.streams, batch_size=self.batch_of_rank)
            if leader:
                record_segments(segments_number(self.shards))
        self.members, self.latents = tuple(members), latents
        self.renew(snapshots)
        self.first_samples = [0, *accumulate(self.samples)]
        self.first_shards = [0, *accumulate(len(snapshot.shards) for snapshot in snapshots)]
        for member, snapshot, folder in zip(members, snapshots, local, strict=True):
            if latents is not None and member.world:
                latents[member.name].open(
                    snapshot, member.remote, folder, member.split, member.cache_limit, member.patience
                )

    def _find_latents(self, members: Sequence[Source], snapshots: Sequence[Snapshot]) -> dict[str, WorldLatents] | None:
        if self.members and self.latents is None:
            return None
        kept = self.latents or {}
        found = {
            member.name: kept.get(member.name) or find_latents(self.wish, snapshot)
            for member, snapshot in zip(members, snapshots, strict=True)
            if member.world
        }
        have = {name: one for name, one in found.items() if one is not None}
        without = [name for name in found if name not in have]
        if have and not without:
            for name in have.keys() - kept.keys():
                log.info("%s: world latents are there, the VAE is not built", have[name].source)
            return have
        if self.members and without:
            raise UserError(
                f"train_loader.datasets: {', '.join(without)}: no world latents, but the run, which has begun with "
                "those of the other data sets, has no VAE; run convert/add_latents.py, or set "
                "train_loader.dataset.world_latents=false"
            )
        if have:
            log.warning("%s: no world latents, so those of all data sets are computed", ", ".join(without))
        return None

    def _new_local(self, member: Source, leader: bool) -> str:
        """Where this opening reads a data set: in place, or under a new name for the cache."""
        if member.remote is None:
            return member.local
        self.times_opened += 1
        return new_name(member.local, self.times_opened - 1, make=leader)

    def _check_room(
        self, members: Sequence[Source], snapshots: Sequence[Snapshot], local: Sequence[str], leader: bool
    ) -> None:
        """Refuse, on all ranks, if some node's cache, which all data sets share, cannot hold a few shards."""
        fault = None
        cached = [place for place, member in enumerate(members) if member.remote is not None]
        if leader and cached:
            sizes = [size for place in cached for size in snapshots[place].shard_bytes]
            try:
                folder, limit = Path(local[cached[0]]).resolve(), members[cached[0]].cache_limit
                capacity = check_capacity(folder, limit, sizes)
                self.small_cache = capacity if capacity < sum(sizes) else None
            except UserError as error:
                fault = str(error)
        if cached:
            raise_on_all_ranks(fault)

    def close(self) -> None:
        """Release the shared memory; nothing can be read until data sets are opened again."""
        if self._reader is not None:
            release_segments(self._reader)
            self._reader = None

    # ---- reading, in the workers too

    @property
    def shards(self) -> StreamingDataset:
        """What samples are read through, those of the second source behind those of the first."""
        if self._reader is None:
            raise ValueError("the data set has been closed")
        return self._reader

    def shard_of(self, source: int, sample: int) -> int:
        """The shard that a sample lies in, of those of all sources."""
        return int(self.shards.spanner[self.first_samples[source] + sample][0])

    def shard_name(self, shard: int) -> str:
        """What the index calls a shard."""
        source = self._source_of(shard)
        return str(self.snapshots[source].shards[shard - self.first_shards[source]]["raw_data"]["basename"])

    def _source_of(self, shard: int) -> int:
        return next(place for place, first in enumerate(self.first_shards[1:]) if shard < first)

    def sample(self, source: int, number: int) -> dict[str, Any]:
        """The MDS sample, with its world latent if the run uses them; with the source's name in front of its id."""
        member, index = self.members[source], self.first_samples[source] + number
        try:
            sample = self.shards[index]
        except OSError as error:
            raise NotNow(f"{member.origin}: sample {number} cannot be read now ({error})") from error
        if self.latents is not None and member.world:
            shard, place = self.shards.spanner[index]
            sample = self.latents[member.name].join(sample, int(shard) - self.first_shards[source], int(place))
        if not member.world:
            sample = {**sample, WORLD: False}
        return {**sample, "id": f"{member.name}/{sample['id']}"} if member.name else sample

    def fetch_shard(self, shard: int) -> None:
        """Have the shard in the cache. Not by way of StreamingDataset's own states: where a fetch fails it leaves the
        shard marked as being prepared, and the node's other workers wait for it for ever."""
        source = self._source_of(shard)
        self.streams[source].prepare_shard(self.shards.shards[shard])
        if self.latents is not None and self.members[source].world:
            self.latents[self.members[source].name].prepare(shard - self.first_shards[source])


def sources_of(state: dict[str, Any], wanted: Sequence[Source]) -> tuple[Source, ...]:
    """The data sets of a pass that goes on: where they lie now, by the configuration; one that it has no more, where it
    lay.

    Args:
        state: of :meth:`~theworld.data.batches.passes.PassDataset.state_dict`.
        wanted: as configured.

    Raises:
        UserError: one is not there any more.
    """
    configured = {one.name: one for one in wanted}
    found = []
    for place in state.get("sources", [{"name": ""}]):
        name = str(place["name"])
        found.append(configured.get(name) or removed(place, name, wanted))
    return tuple(found)


def removed(place: dict[str, Any], name: str, wanted: Sequence[Source]) -> Source:
    """A data set that the configuration does not have any more."""
    cached = next((one.local for one in wanted if one.remote is not None), None)
    remote, local = place.get("remote"), place.get("local")
    source = replace(wanted[0], remote=remote, local=cached if remote else local, split=place.get("split"), known=False)
    source = replace(source, share=Share(name), world=place.get(WORLD) is not False)
    what = f"the pass that goes on has samples of {name or 'a single data set'}, which"
    if source.local is None:
        raise UserError(f"train_loader.datasets: {what} is not configured any more; put it back until the pass ends")
    try:
        from_rank_zero(lambda: read_snapshot(source.origin, source.split))
    except UserError as error:
        raise UserError(f"train_loader.datasets: {what} is gone: {error}") from error
    return source


def tell(members: Sequence[Source]) -> str:
    """Their names and places, for the log."""
    return ", ".join(f"{one.name} ({one.origin})" if one.name else one.origin for one in members)
