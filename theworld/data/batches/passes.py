"""A pass over the data set: which samples are left, where the pass stands, what it knows.

:class:`PassDataset` knows which samples are left (:mod:`~theworld.data.batches.order`), reads them through a
:class:`streaming.StreamingDataset`, and saves and restores its place. The loader over it is in
:mod:`~theworld.data.batches.loader`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from composer.utils import dist
from streaming import StreamingDataset
from torch.utils.data import IterableDataset, get_worker_info

from theworld.data.batches.closed_pass import ClosedPass
from theworld.data.batches.collate import PADDING_SAMPLE
from theworld.data.batches.fetches import NodeShare, warn_of_fetches
from theworld.data.batches.order import Indices, Shuffle, Stage, pass_order, rank_batch
from theworld.data.batches.sample_encoder import EncodedSample
from theworld.data.batches.worker_notes import WorkerNotes
from theworld.data.cache.attempt_folder import new_name
from theworld.data.cache.latent_store import LatentWish, WorldLatents, find_latents
from theworld.data.cache.lookahead import LONGER, ShardLookahead
from theworld.data.cache.shard_cache import SnapshotStream
from theworld.data.cache.shared_memory import one_opening_at_a_time, record_segments
from theworld.data.cache.snapshot import Snapshot, read_snapshot
from theworld.data.cache.space import check_capacity
from theworld.data.cache.streaming_internals import open_shards, release_segments, segments_number
from theworld.errors import NotNow, UserError
from theworld.labels import IGNORE
from theworld.patience import patiently
from theworld.ranks import from_rank_zero, raise_on_all_ranks

log = logging.getLogger(__name__)

STATE_VERSION = 2
"""1: passes of such a state are mixed in blocks (:data:`~theworld.data.batches.order.BLOCKS`), and end so."""
BATCHES_AHEAD = 4
"""Batches whose shards each worker fetches before it needs them."""


@dataclass(frozen=True)
class Source:
    """Where the data set lies and how this process reads it."""

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

    @property
    def origin(self) -> str:
        """Where growth shows first."""
        return self.remote if self.remote is not None else self.local


class PassDataset(IterableDataset):
    """The samples of a pass that are left, for this rank.

    All methods but ``__iter__`` run in the training process and, except :meth:`state_dict`, on all ranks at once.

    Args:
        source: the data set.
        shuffle: for the first pass; later ones count its epoch up. A pass that is loaded keeps what it began with.
        global_batch_size: samples of a batch over all ranks; must divide by the ranks.
        prepare: MDS sample and the number of its pass to encoded sample; runs in the workers.
        follow_growth: take up generations that were added, on resume, when :attr:`growth_wanted` is set, and when the
            known samples are used up.
        latents: world latents that the run can use, if the data set has them.
    """

    def __init__(
        self,
        source: Source,
        shuffle: Shuffle,
        global_batch_size: int,
        prepare: Callable[[dict[str, Any], int], EncodedSample],
        follow_growth: bool = True,
        latents: LatentWish | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.wanted_shuffle = shuffle
        """Of passes that are yet to begin; one that has begun keeps its own."""
        self.shuffle = shuffle
        self.global_batch_size = global_batch_size
        self.prepare = prepare
        self.follow_growth = follow_growth
        self.rank = dist.get_global_rank()
        self.ranks = dist.get_world_size()
        self.times_opened = 0
        self.position = 0
        self.last_batch_may_be_short = False
        self.growth_wanted = False
        """Look for growth before the next batch; set between batches."""
        self.stages: list[Stage] = []
        self.lost: list[tuple[int, int]] = []
        self.closed: ClosedPass | None = None
        self.latents: WorldLatents | None = None
        self.notes = WorkerNotes(0, self.shard_name)
        """Of the loader's workers; the loader puts those of its number here."""
        self._shards: StreamingDataset | None = None
        self._small_cache: int | None = None
        """Bytes that the node's cache holds, on its first rank and until that is said, if it cannot hold all."""
        snapshot = self.newest_snapshot()
        self.latents = find_latents(latents, snapshot)
        self._open(snapshot)
        self.start_pass()

    # ---- what is known

    def _read_snapshot(self) -> Snapshot:
        try:
            return read_snapshot(self.source.origin, self.source.split)
        except UserError as error:
            if self.source.known or self._shards is not None:
                raise NotNow(str(error)) from error
            raise

    def newest_snapshot(self, patience: float | None = None) -> Snapshot:
        """The snapshot that all ranks agree on: rank 0 reads it.

        Args:
            patience: seconds, as for :class:`Source`; None: the source's.

        Raises:
            UserError: there is no data set, or none with samples.
            NotNow: it cannot be reached.
        """
        seconds = self.source.patience if patience is None else patience
        found = from_rank_zero(lambda: patiently(self._read_snapshot, self.source.origin, seconds))
        if found.samples == 0:
            raise UserError(f"{self.source.origin}: the data set has no samples; run convert/to_mds.py")
        return found if self.latents is None else self.latents.newest_covered(found)

    def _open(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        source = self.source
        local = source.local
        leader = dist.get_local_rank() == 0
        if source.remote is not None:
            local = new_name(source.local, self.times_opened, make=leader)
            self.times_opened += 1
            self._check_room(local, leader)
        with one_opening_at_a_time(leader):
            self.close()
            dist.barrier()
            self.stream = SnapshotStream(
                snapshot, source.remote, local, source.split, source.cache_limit, source.patience
            )
            self._shards = open_shards(streams=[self.stream], batch_size=self.global_batch_size // self.ranks)
            if leader:
                record_segments(segments_number(self.shards))
        if self.latents is not None:
            self.latents.open(snapshot, source.remote, local, source.split, source.cache_limit, source.patience)

    def close(self) -> None:
        """Release the shared memory; nothing can be read until the data set is opened again."""
        if self._shards is not None:
            release_segments(self._shards)
            self._shards = None

    @property
    def shards(self) -> StreamingDataset:
        """What samples are read through, by index."""
        if self._shards is None:
            raise ValueError("the data set has been closed")
        return self._shards

    def _check_room(self, local: str, leader: bool) -> None:
        """Refuse, on all ranks, if some node's cache cannot hold a few shards."""
        fault = None
        if leader:
            try:
                self._check_room_of_node(local)
            except UserError as error:
                fault = str(error)
        raise_on_all_ranks(fault)

    def _check_room_of_node(self, local: str) -> None:
        """Refuse a cache that cannot hold a few shards."""
        sizes = self.snapshot.shard_bytes
        capacity = check_capacity(Path(local).resolve(), self.source.cache_limit, sizes)
        self._small_cache = capacity if capacity < sum(sizes) else None

    def warn_of_small_cache(self) -> None:
        """Say, once after each opening, how often the node's cache will fetch shards, if that is more than once."""
        if self._small_cache is not None:
            node = NodeShare(self.global_batch_size, dist.get_node_rank(), self.ranks // dist.get_local_world_size())
            warn_of_fetches(self.order[self.position :], self.snapshot, node, self._small_cache)
            self._small_cache = None

    def _reorder(self) -> None:
        self.order: Indices = pass_order(self.stages, self.snapshot.shard_sizes, self.shuffle)

    def start_pass(self) -> None:
        """Begin a pass over all that is known."""
        self.position = 0
        self.lost = []
        self.shuffle = replace(self.wanted_shuffle, epoch=self.shuffle.epoch)
        self.stages = [Stage(0, self.snapshot.samples, self.global_batch_size)]
        self._reorder()

    def finish_pass(self) -> None:
        """The pass is over; the next one shuffles everything together."""
        self.closed = ClosedPass(self.position, tuple(self.stages), self.shuffle)
        self.shuffle = replace(self.shuffle, epoch=self.shuffle.epoch + 1)
        self.start_pass()

    def reopen_pass(self) -> ClosedPass | None:
        """Where nothing has been read since a pass ended, go on with that pass, if there is something new for it.

        Returns:
            The pass as it had ended; None if it stays so.
        """
        closed = self.closed
        if self.position or closed is None or closed.stages[-1].samples >= self.snapshot.samples:
            return None
        self.shuffle = closed.shuffle
        self.position = closed.position
        self.stages = [*closed.stages, Stage(closed.position, self.snapshot.samples, self.global_batch_size)]
        self.closed = None
        self._reorder()
        log.info("the pass that had ended after %d samples goes on: %d new ones", closed.position, self.left)
        return closed

    def has_grown(self) -> bool:
        """Whether the converter has finished something since, if that is to be looked for now; takes nothing up.

        A remote that is out of reach is for later: known samples are left.
        """
        if not (self.growth_wanted and self.follow_growth):
            return False
        self.growth_wanted = False
        try:
            return self.newest_snapshot(patience=0.0).samples > self.snapshot.samples
        except NotNow as error:
            log.warning("whether there are new samples is looked for at the next save: %s", error)
            return False

    def take_up_growth(self) -> bool:
        """Add what the converter has finished since; True if there was something."""
        if not self.follow_growth:
            return False
        newest = self.newest_snapshot()
        difference = newest.difference([generation.state_dict() for generation in self.snapshot.generations])
        if difference is not None:
            raise UserError(f"{self.source.origin}: {difference}; the run cannot go on with the samples that it knew")
        if newest.samples == self.snapshot.samples:
            self.snapshot = newest  # what it says of the JSON may have changed
            return False
        log.info(
            "taking up %d new samples: %d known now, %d of this pass done",
            newest.samples - self.snapshot.samples,
            newest.samples,
            self.position,
        )
        self._open(newest)
        self.stages.append(Stage(self.position, newest.samples, self.global_batch_size))
        self._reorder()
        return True

    def lose(self, end: int) -> None:
        """Note that the step of the batch that ended at this position was not taken. All ranks call it."""
        last = max(stage.position for stage in self.stages if stage.position < end)
        first = end - ((end - last - 1) % self.global_batch_size + 1)
        # What was given again already and is lost once more stays lost.
        if not any(stage.again and stage.position <= first for stage in self.stages):
            self.lost.append((first, end))

    def give_again(self) -> bool:
        """At the end of the pass, append the samples of the steps that were lost; True if there were any."""
        if not self.lost:
            return False
        self.stages.append(Stage(self.position, self.snapshot.samples, self.global_batch_size, tuple(self.lost)))
        self.lost = []
        self._reorder()
        log.info("%d samples are given again, whose steps were not finite", self.left)
        return True

    @property
    def left(self) -> int:
        """Known samples of the pass that are not consumed yet."""
        return len(self.order) - self.position

    # ---- state

    def state_dict(self, num_samples: int, from_beginning: bool = True) -> dict[str, Any]:
        """How far the pass has come, and the data and order it goes through. Called by Composer at each save.

        Args:
            num_samples: samples of this pass trained on, over all ranks, padding samples not counted.
            from_beginning: counted from the start of the pass; nothing else is supported.
        """
        if not from_beginning:
            raise ValueError("the place in a pass is counted from its beginning")
        return {
            "version": STATE_VERSION,
            "epoch": self.shuffle.epoch,
            "position": num_samples,
            "stages": [stage.state_dict() for stage in self.stages],
            "lost": [list(batch) for batch in self.lost],
            "closed": self.closed.state_dict() if self.closed is not None else None,
            "shuffle": self.shuffle.state_dict(),
            "generations": [generation.state_dict() for generation in self.snapshot.generations],
            "fingerprint": self.snapshot.fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any] | str) -> None:
        """Go on from a saved place. Called by Composer on all ranks.

        Args:
            state: what :meth:`state_dict` gave, or that as JSON text, which sharded checkpoints hold.

        Raises:
            UserError: the data set is not the one of the checkpoint, or the state is of another version.
        """
        if isinstance(state, str):
            state = json.loads(state)
        assert isinstance(state, dict)
        if state.get("version") not in (1, STATE_VERSION):
            raise UserError(
                "the checkpoint's data set state is of another version; start a new pass (load_weights_only)"
            )
        difference = self.snapshot.difference(state["generations"])
        if difference is not None:
            raise UserError(
                f"{self.source.origin}: {difference}, so this is not the data set of the checkpoint (fingerprint "
                f"{state['fingerprint']}); put it back, or start a new pass from the weights: load_path=CHECKPOINT "
                "load_weights_only=true and another save_folder"
            )
        self.shuffle = Shuffle.from_state(state["shuffle"], int(state["epoch"]))
        self.stages = [Stage.from_state(stage) for stage in state["stages"]]
        self.position = int(state["position"])
        self.lost = [(int(first), int(end)) for first, end in state.get("lost", ())]
        self.closed = ClosedPass.from_state(state["closed"], self.shuffle) if state.get("closed") else None
        if self.position == 0:
            self.start_pass()
            return
        last = self.stages[-1]
        grown = self.snapshot.samples - last.samples
        if grown or last.global_batch_size != self.global_batch_size:
            self.stages.append(Stage(self.position, self.snapshot.samples, self.global_batch_size))
        self._reorder()
        log.info(
            "the pass goes on after %d of %d samples%s",
            self.position,
            len(self.order),
            f", {grown} of them new since the checkpoint" if grown else "",
        )

    # ---- in the workers

    def __iter__(self) -> Iterator[EncodedSample]:
        """This worker's samples: of the rank's batches every ``num_workers``-th, whole batches in a row."""
        worker = get_worker_info()
        starts = list(self.batch_starts())[worker.id :: worker.num_workers] if worker else list(self.batch_starts())
        with ShardLookahead(self.fetch_shard, self.source.patience) as lookahead:
            for place, start in enumerate(starts):
                for ahead in starts[place : place + BATCHES_AHEAD + 1]:
                    lookahead.request(self.shard_of(slot.index) for slot in self.slots(ahead))
                for slot in self.slots(start):
                    shard = self.shard_of(slot.index)
                    with self.notes.waiting(worker.id if worker else 0, shard, self.source.patience + LONGER):
                        lookahead.wait(shard)
                    encoded = self.prepare(self.sample(slot.index), self.shuffle.epoch)
                    if slot.is_padding:
                        encoded = replace(encoded, labels=[IGNORE] * len(encoded.labels), no_loss=PADDING_SAMPLE)
                    yield encoded

    def shard_of(self, index: int) -> int:
        """The shard that a sample lies in."""
        return int(self.shards.spanner[index][0])

    def shard_name(self, shard: int) -> str:
        """What the index calls a shard."""
        return str(self.snapshot.shards[shard]["raw_data"]["basename"])

    def sample(self, index: int) -> dict[str, Any]:
        """The MDS sample, with its world latent if the run uses them."""
        try:
            sample = self.shards[index]
        except OSError as error:
            raise NotNow(f"{self.source.origin}: sample {index} cannot be read now ({error})") from error
        if self.latents is None:
            return sample
        shard, place = self.shards.spanner[index]
        return self.latents.join(sample, int(shard), int(place))

    def fetch_shard(self, shard: int) -> None:
        """Have the shard in the cache. Not by way of StreamingDataset's own states: where a fetch fails it leaves the
        shard marked as being prepared, and the node's other workers wait for it for ever."""
        self.stream.prepare_shard(self.shards.shards[shard])
        if self.latents is not None:
            self.latents.prepare(shard)

    def batch_starts(self) -> range:
        """Positions at which the global batches begin that are to be read now."""
        end = len(self.order)
        if not self.last_batch_may_be_short:
            end -= self.left % self.global_batch_size
        return range(self.position, end, self.global_batch_size)

    def slots(self, start: int) -> list[Any]:
        return rank_batch(self.order, start, self.global_batch_size, self.rank, self.ranks)
