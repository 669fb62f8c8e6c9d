"""A pass over the data set: which samples are left, where the pass stands, what it knows.

:class:`PassDataset` knows which samples are left (:mod:`~theworld.data.batches.order`), reads them through a
:class:`streaming.StreamingDataset`, and saves and restores its place. The loader over it is in
:mod:`~theworld.data.batches.loader`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from composer.utils import dist
from streaming import StreamingDataset
from torch.utils.data import IterableDataset, get_worker_info

from theworld.data.batches.closed_pass import ClosedPass
from theworld.data.batches.collate import PADDING_SAMPLE
from theworld.data.batches.fetches import NodeShare, warn_of_fetches
from theworld.data.batches.mixture import Copies, PassMix, copies_at, portions
from theworld.data.batches.order import Indices, Shuffle, Stage, pass_order, rank_batch
from theworld.data.batches.sample_encoder import EncodedSample
from theworld.data.batches.sources import Source, Sources, sources_of, tell
from theworld.data.batches.worker_notes import WorkerNotes
from theworld.data.cache.latent_store import LatentWish, WorldLatents
from theworld.data.cache.lookahead import LONGER, ShardLookahead
from theworld.data.cache.snapshot import Snapshot
from theworld.errors import NotNow, UserError, describe
from theworld.labels import IGNORE

log = logging.getLogger(__name__)

STATE_VERSION = 2
"""1: passes of such a state are mixed in blocks (:data:`~theworld.data.batches.order.BLOCKS`), and end so."""
BATCHES_AHEAD = 4
"""Batches whose shards each worker fetches before it needs them."""


class PassDataset(IterableDataset):
    """The samples of a pass that are left, for this rank.

    All methods but ``__iter__`` run in the training process and, except :meth:`state_dict`, on all ranks at once.

    Args:
        sources: the data set, or those that passes mix.
        shuffle: for the first pass; later ones count its epoch up. A pass that is loaded keeps what it began with, its
            mixture too.
        global_batch_size: samples of a batch over all ranks; must divide by the ranks.
        prepare: MDS sample, the number of its pass and of its copy to encoded sample; runs in the workers.
        follow_growth: take up generations that were added, on resume, when :attr:`growth_wanted` is set, and when the
            known samples are used up.
        latents: world latents that the run can use, if the data set has them.
    """

    def __init__(
        self,
        sources: Source | Sequence[Source],
        shuffle: Shuffle,
        global_batch_size: int,
        prepare: Callable[[dict[str, Any], int, int], EncodedSample],
        follow_growth: bool = True,
        latents: LatentWish | None = None,
    ) -> None:
        super().__init__()
        self.wanted = (sources,) if isinstance(sources, Source) else tuple(sources)
        """The data sets of passes that are yet to begin; one that has begun keeps its own."""
        self.wanted_shuffle = shuffle
        """As well."""
        self.shuffle = shuffle
        self.global_batch_size = global_batch_size
        self.prepare = prepare
        self.follow_growth = follow_growth
        self.rank = dist.get_global_rank()
        self.ranks = dist.get_world_size()
        self.position = 0
        self.last_batch_may_be_short = False
        self.growth_wanted = False
        """Look for growth before the next batch; set between batches."""
        self.stages: list[Stage] = []
        self.lost: list[tuple[int, int]] = []
        self.closed: ClosedPass | None = None
        self.after: dict[str, int] = {}
        """Where the next pass goes on in each source of which passes take a part (:func:`~.mixture.following`)."""
        self.sources = Sources(global_batch_size // self.ranks, latents)
        self.notes = WorkerNotes(0, self.shard_name)
        """Of the loader's workers; the loader puts those of its number here."""
        self.sources.open(self.wanted, self.sources.newest(self.wanted))
        self.start_pass()

    # ---- what is known

    @property
    def snapshot(self) -> Snapshot:
        """The data sets that are open, as one."""
        return self.sources.snapshot

    @property
    def shards(self) -> StreamingDataset:
        """What samples are read through; of a single data set, by their index in the order."""
        return self.sources.shards

    @property
    def latents(self) -> dict[str, WorldLatents] | None:
        """World latents by source; None: they are computed."""
        return self.sources.latents

    @property
    def known(self) -> int:
        """Samples that the pass has, as far as they are there; copies of one count each."""
        return self.stages[-1].samples

    def known_with(self, samples: Sequence[int]) -> int:
        """As :attr:`known`, if so many samples of each source were there."""
        return copies_at(self.mix, samples)

    def close(self) -> None:
        """Release the shared memory; nothing can be read until the data set is opened again."""
        self.sources.close()

    def warn_of_small_cache(self) -> None:
        """Say, once after each opening, how often the node's cache will fetch shards, if that is more than once."""
        if self.sources.small_cache is not None:
            node = NodeShare(self.global_batch_size, dist.get_node_rank(), self.ranks // dist.get_local_world_size())
            left = self.order[self.position :]
            first = np.asarray(self.sources.first_samples)
            samples = first[self.copies.source[left]] + self.copies.sample[left]
            warn_of_fetches(samples, self.snapshot, node, self.sources.small_cache)
            self.sources.small_cache = None

    def _reorder(self) -> None:
        self.copies = Copies.of(self.mix, [snapshot.shard_sizes for snapshot in self.sources.snapshots])
        if self.copies.ends != [stage.samples for stage in self.stages]:
            raise ValueError(f"a pass of {self.stages} does not have {self.copies.ends} samples")
        self.order: Indices = pass_order(self.stages, self.copies.runs, self.shuffle)

    def start_pass(self) -> None:
        """Begin a pass over all that is known."""
        self.position = 0
        self.lost = []
        self.shuffle = replace(self.wanted_shuffle, epoch=self.shuffle.epoch)
        shares = [member.share for member in self.sources.members]
        self.mix = PassMix.begin(portions(shares, self.sources.samples, self.after, self.shuffle.seed))
        self.stages = []
        self._add_stage(self.mix)
        self._reorder()

    def _add_stage(self, mix: PassMix, again: tuple[tuple[int, int], ...] = ()) -> None:
        """From here on the pass has what ``mix`` says last."""
        self.mix = mix
        self.stages.append(Stage(self.position, copies_at(mix, mix.known[-1]), self.global_batch_size, again))

    def finish_pass(self) -> None:
        """The pass is over; the next one shuffles everything together, of the data sets that are wanted now."""
        after = {**self.after, **self.mix.following()}
        closed = ClosedPass(self.position, tuple(self.stages), self.shuffle, self.mix, self.snapshot.generations)
        if self.follow_growth and (self.sources.members != self.wanted or self.wanted[0].name):
            # Some sources' new samples have waited for this pass; and the data sets may be others.
            self.sources.open(self.wanted, self.sources.newest(self.wanted))
        self.after, self.closed = after, closed
        self.shuffle = replace(self.shuffle, epoch=self.shuffle.epoch + 1)
        self.start_pass()

    def reopen_pass(self) -> ClosedPass | None:
        """Where nothing has been read since a pass ended, go on with that pass, if there is something new for it.

        Returns:
            The pass as it had ended; None if it stays so.
        """
        closed = self.closed
        names = [member.name for member in self.sources.members]
        if self.position or closed is None or [one.name for one in closed.mix.portions] != names:
            return None
        try:
            closed.mix.check(self.sources.samples, closed.stages)
        except ValueError as error:
            log.warning("the pass that has ended is not gone on with: %s", error)
            return None
        known = closed.mix.grown(self.sources.samples)
        if all(now <= before for now, before in zip(known, closed.mix.known[-1], strict=True)):
            return None
        self.shuffle = closed.shuffle
        self.position = closed.position
        self.stages = [*closed.stages]
        self._add_stage(closed.mix.next_stage(known))
        self.closed = None
        self._reorder()
        log.info("the pass that had ended after %d samples goes on: %d new ones", closed.position, self.left)
        return closed

    def has_grown(self) -> bool:
        """Whether the converter has finished something for this pass since, if that is to be looked for now; takes
        nothing up.

        A remote that is out of reach is for later: known samples are left.
        """
        if not (self.growth_wanted and self.follow_growth):
            return False
        self.growth_wanted = False
        try:
            newest = self.sources.newest(self.sources.members, patience=0.0)
        except NotNow as error:
            log.warning("whether there are new samples is looked for at the next save: %s", error)
            return False
        return self.known_with([snapshot.samples for snapshot in newest]) > self.known

    def take_up_growth(self) -> bool:
        """Add what the converter has finished since; True if there was something for this pass."""
        if not self.follow_growth:
            return False
        sources = self.sources
        newest = sources.newest(sources.members)
        for member, before, now in zip(sources.members, sources.snapshots, newest, strict=True):
            difference = now.difference([generation.state_dict() for generation in before.generations])
            if difference is not None:
                raise UserError(f"{member.origin}: {difference}; the run cannot go on with the samples that it knew")
        known = self.mix.grown([snapshot.samples for snapshot in newest])
        # What is for the next pass is left out of this one's snapshots.
        taken = [
            now if portion.grows or now.samples == before.samples else before
            for portion, before, now in zip(self.mix.portions, sources.snapshots, newest, strict=True)
        ]
        if known == self.mix.known[-1]:
            sources.renew(taken)
            return False
        before = self.known
        sources.open(sources.members, taken)
        self._add_stage(self.mix.next_stage(known))
        log.info(
            "taking up %d new samples: %d known now, %d of this pass done",
            self.known - before,
            self.known,
            self.position,
        )
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
        self._add_stage(self.mix.next_stage(self.mix.known[-1]), tuple(self.lost))
        self.lost = []
        self._reorder()
        log.info("%d samples are given again, whose steps were not finite", self.left)
        return True

    @property
    def patience(self) -> float:
        """Seconds to try again where a shard cannot be reached."""
        return self.wanted[0].patience

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
        state = {
            "version": STATE_VERSION,
            "epoch": self.shuffle.epoch,
            "position": num_samples,
            "stages": [stage.state_dict() for stage in self.stages],
            "lost": [list(batch) for batch in self.lost],
            "closed": self.closed.state_dict() if self.closed is not None else None,
            "shuffle": self.shuffle.state_dict(),
            "generations": [generation.state_dict() for generation in self.snapshot.generations],
            "fingerprint": self.snapshot.fingerprint,
            "sources": [{"name": member.name, **member.place()} for member in self.sources.members],
        }
        if self.mix.is_named:
            state |= {"mix": self.mix.state_dict(), "after": self.after}
        return state

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
        try:
            self._load(state)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"the checkpoint's place in its data set cannot be read ({describe(error)}); start a new pass from the "
                "weights: load_path=CHECKPOINT load_weights_only=true and another save_folder"
            ) from error

    def _load(self, state: dict[str, Any]) -> None:
        self.shuffle = Shuffle.from_state(state["shuffle"], int(state["epoch"]))
        self.stages = [Stage.from_state(stage) for stage in state["stages"]]
        self.position = int(state["position"])
        self.lost = [(int(first), int(end)) for first, end in state.get("lost", ())]
        self.closed = ClosedPass.from_state(state["closed"], self.shuffle) if state.get("closed") else None
        self.after = {str(name): int(key) for name, key in state.get("after", {}).items()}
        members = self.wanted if self.position == 0 else sources_of(state, self.wanted)
        if members != self.sources.members:
            self.sources.open(members, self.sources.newest(members))
        self._check_generations(state)
        if self.position == 0:
            self.start_pass()
            return
        self.mix = PassMix.of_pass(state, self.stages)
        self.mix.check(self.sources.samples, self.stages)
        grown = self.mix.grown(self.sources.samples)
        new = copies_at(self.mix, grown) - self.known
        if new or self.stages[-1].global_batch_size != self.global_batch_size:
            self._add_stage(self.mix.next_stage(grown))
        self._reorder()
        log.info(
            "the pass goes on after %d of %d samples%s",
            self.position,
            len(self.order),
            f", {new} of them new since the checkpoint" if new else "",
        )
        if members != self.wanted:
            log.info("train_loader.datasets: until the pass ends it reads %s", tell(members))

    def _check_generations(self, state: dict[str, Any]) -> None:
        """Refuse data sets that do not continue those of a checkpoint."""
        for member, snapshot in zip(self.sources.members, self.sources.snapshots, strict=True):
            begin = f"{member.name}/" if member.name else ""
            names = [
                {**one, "name": one["name"].removeprefix(begin)}
                for one in state["generations"]
                if one["name"].startswith(begin)
            ]
            difference = snapshot.difference(names)
            if difference is not None:
                raise UserError(
                    f"{member.origin}: {difference}, so this is not the data set of the checkpoint (fingerprint "
                    f"{state['fingerprint']}); put it back, or start a new pass from the weights: "
                    "load_path=CHECKPOINT load_weights_only=true and another save_folder"
                )

    # ---- in the workers

    def __iter__(self) -> Iterator[EncodedSample]:
        """This worker's samples: of the rank's batches every ``num_workers``-th, whole batches in a row."""
        worker = get_worker_info()
        starts = list(self.batch_starts())[worker.id :: worker.num_workers] if worker else list(self.batch_starts())
        with ShardLookahead(self.fetch_shard, self.patience) as lookahead:
            for place, start in enumerate(starts):
                for ahead in starts[place : place + BATCHES_AHEAD + 1]:
                    lookahead.request(self.shard_of(slot.index) for slot in self.slots(ahead))
                for slot in self.slots(start):
                    shard = self.shard_of(slot.index)
                    with self.notes.waiting(worker.id if worker else 0, shard, self.patience + LONGER):
                        lookahead.wait(shard)
                    encoded = self.prepare(
                        self.sample(slot.index), self.shuffle.epoch, int(self.copies.copy[slot.index])
                    )
                    if slot.is_padding:
                        encoded = replace(encoded, labels=[IGNORE] * len(encoded.labels), no_loss=PADDING_SAMPLE)
                    self.notes.made(worker.id if worker else 0)
                    yield encoded

    def shard_of(self, index: int) -> int:
        """The shard that a copy's sample lies in."""
        return self.sources.shard_of(int(self.copies.source[index]), int(self.copies.sample[index]))

    def shard_name(self, shard: int) -> str:
        """What the index calls a shard."""
        return self.sources.shard_name(shard)

    def sample(self, index: int) -> dict[str, Any]:
        """The MDS sample that is copied, with its world latent if the run uses them."""
        return self.sources.sample(int(self.copies.source[index]), int(self.copies.sample[index]))

    def fetch_shard(self, shard: int) -> None:
        """Have the shard in the cache."""
        self.sources.fetch_shard(shard)

    def batch_starts(self) -> range:
        """Positions at which the global batches begin that are to be read now."""
        end = len(self.order)
        if not self.last_batch_may_be_short:
            end -= self.left % self.global_batch_size
        return range(self.position, end, self.global_batch_size)

    def slots(self, start: int) -> list[Any]:
        return rank_batch(self.order, start, self.global_batch_size, self.rank, self.ranks)
