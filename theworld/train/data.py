"""The section ``train_loader`` of the YAML -> a Composer data spec."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from composer.core import DataSpec
from composer.utils import dist
from torch.utils.data import get_worker_info

from theworld.config.data_places import places_of
from theworld.config.schema import DatasetConfig, LoaderConfig
from theworld.config.sizes import parse_bytes
from theworld.data.batches.collate import Collator, samples_in_batch, tokens_in_batch
from theworld.data.batches.loader import PassLoader
from theworld.data.batches.microbatches import Microbatch, split_by_length
from theworld.data.batches.mixture import Share
from theworld.data.batches.order import Shuffle
from theworld.data.batches.passes import PassDataset
from theworld.data.batches.sample_encoder import EncodedSample, SampleEncoder
from theworld.data.batches.sources import WORLD, Source
from theworld.data.cache.attempt_folder import AttemptFolder
from theworld.data.cache.latent_store import LatentWish
from theworld.data.cache.shard_cache import default_cache_folder, make_cache_folder
from theworld.data.cache.streaming_internals import make_lock_folder
from theworld.data.samples import decode_sample
from theworld.data.samples.augment import Augment, augment_sample, sample_seed
from theworld.errors import UserError, describe
from theworld.model.processing import TheWorldProcessor, without_world
from theworld.processes import end_with_lost_batch
from theworld.pulse import SHOW_STACK, STANDARD_ERROR
from theworld.signals import ignore_stop_signals

log = logging.getLogger(__name__)

FEWEST_PARTS = 8
"""Parts of the data that are read side by side on few nodes: a batch then mixes that many times as many shards."""
LONGEST_TMPDIR = 107 - len("/pymp-12345678/listener-12345678")
"""Linux ends a socket's path at 107 bytes. Beyond it a worker's batches never arrive, and no error is raised."""


@dataclass
class SampleTransform:
    """MDS sample -> decoded sample -> encoded sample; runs in the loader's workers.

    Whatever a sample holds, it becomes one without loss rather than the end of the run, which would meet it again
    at the same batch after each restart. A :class:`UserError` is about the configuration and does end the run.
    """

    encoder: SampleEncoder
    draw_bboxes: bool
    augment: Augment | None = None
    seed: int = 0
    worldless: SampleEncoder | None = None
    """For samples of data sets with the world off; made when the first one comes."""

    def encoder_for(self, sample: dict[str, Any]) -> SampleEncoder:
        """The encoder of a sample's data set."""
        if sample.get(WORLD, True):
            return self.encoder
        if self.worldless is None:
            self.worldless = SampleEncoder(without_world(self.encoder.processor), self.encoder.max_seq_len)
        return self.worldless

    def __call__(self, sample: dict[str, Any], epoch: int, copy: int = 0) -> EncodedSample:
        encoder = self.encoder_for(sample)
        try:
            decoded = decode_sample(sample, self.draw_bboxes)
            if self.augment is not None:
                decoded = augment_sample(decoded, self.augment, sample_seed(self.seed, epoch, decoded.id, copy))
            return encoder(decoded)
        except UserError:
            raise
        except Exception as error:
            return encoder.without_loss(str(sample["id"]), f"sample cannot be encoded: {describe(error)}")


@dataclass
class TrainData:
    """The loader with what has to be cleaned up after it."""

    spec: DataSpec
    dataset: PassDataset
    attempt: AttemptFolder | None
    picture_bytes: int
    """Of a sample in a batch: pixels and latents."""

    def close(self) -> None:
        """End the workers, give back shared memory and this attempt's name for the node's cache; the shards stay."""
        loader = self.spec.dataloader
        assert isinstance(loader, PassLoader)
        loader.close()
        self.dataset.close()
        if self.attempt is not None:
            self.attempt.remove()


def build_data(
    config: LoaderConfig,
    processor: TheWorldProcessor,
    global_batch_size: int,
    seed: int,
    growing: bool,
    latents: LatentWish | None = None,
    length_step: int = 1,
    augment: Augment | None = None,
    pin_memory: bool = False,
    known: bool = False,
) -> TrainData:
    """Build the loader of one rank.

    Args:
        config: ``train_loader`` or ``eval_loader``.
        processor: TheWorld's.
        global_batch_size: over all ranks.
        seed: for shuffling, unless the config names its own.
        growing: whether to take up generations that are added.
        latents: world latents that the model can take instead of pictures, where the data set has them.
        length_step: (micro)batches are padded to a multiple of so many tokens.
        augment: the user's own change of each sample; never for evaluation.
        pin_memory: whether the microbatches go to a GPU.
        known: the run has read the data set before: if it is not there now, it is out of reach.

    Raises:
        UserError: there is no data set, or the cache cannot be written.
    """
    settings = config.dataset
    encoder = SampleEncoder(processor, settings.max_seq_len)
    sources, attempt = open_sources(config, known)
    nodes = dist.get_world_size() // dist.get_local_world_size()
    shuffle = first_shuffle(settings, seed, nodes)
    prepare = SampleTransform(encoder, settings.draw_bboxes, augment, seed)
    dataset = PassDataset(sources, shuffle, global_batch_size, prepare, growing, latents)
    encoder.world_latents = dataset.latents is not None
    workers = config.num_workers
    loader = PassLoader(
        dataset,
        batch_size=global_batch_size // dist.get_world_size(),
        collate_fn=Collator(processor, length_step, config.world == "shuffled"),
        num_workers=workers,
        prefetch_factor=config.prefetch_factor if workers else None,
        worker_init_fn=begin_worker if workers else None,
        pin_memory=False,  # the microbatches are; see there
        # Else each start of the workers would draw from the generator that dropout draws from.
        generator=torch.Generator().manual_seed(seed),
    )
    spec = DataSpec(
        loader,
        split_batch=partial(split_by_length, length_step=length_step, pin_memory=pin_memory),
        microbatch_transforms=Microbatch,
        get_num_samples_in_batch=samples_in_batch,
        get_num_tokens_in_batch=tokens_in_batch,  # pyright: ignore[reportArgumentType] - Composer sums floats as well
    )
    return TrainData(spec, dataset, attempt, encoder.picture_bytes())


def first_shuffle(settings: DatasetConfig, seed: int, nodes: int) -> Shuffle:
    """How passes that begin now are shuffled.

    Args:
        settings: of the data set.
        seed: if the settings name none.
        nodes: of this start. Where the settings do not say how many parts there are, each node has equally many, so
            that none needs another's shards, and there are at least :data:`FEWEST_PARTS`.
    """
    parts = settings.num_canonical_nodes
    if parts is None:
        parts = nodes * next(times for times in (1, 2, 4, 8) if nodes * times >= FEWEST_PARTS)
    return Shuffle(
        settings.shuffle,
        seed if settings.shuffle_seed is None else settings.shuffle_seed,
        epoch=0,
        num_canonical_nodes=parts,
        block_size=settings.shuffle_block_size,
    )


def begin_worker(worker: int) -> None:
    """Loader workers do not die of the signals that ask a run to stop, but where they lose a batch, tell which process
    they are, and write their stack to the log when the rank asks for it."""
    ignore_stop_signals([signal.SIGTERM, signal.SIGUSR1])
    signal.set_wakeup_fd(-1)  # the rank's
    end_with_lost_batch()
    faulthandler.register(SHOW_STACK, file=STANDARD_ERROR, all_threads=True)
    info = get_worker_info()
    assert info is not None
    info.dataset.notes.begin(worker)  # pyright: ignore[reportAttributeAccessIssue] - a PassDataset


def open_sources(config: LoaderConfig, known: bool) -> tuple[list[Source], AttemptFolder | None]:
    """The data sets, and where this attempt reads shards from. The node's first rank makes the attempt's name, the
    others learn it.

    Raises:
        UserError: on all ranks; the cache cannot be written on some node, or its ranks disagree on ``$TMPDIR``.
    """
    settings = config.dataset
    limit = (
        None if settings.cache_limit is None else parse_bytes("train_loader.dataset.cache_limit", settings.cache_limit)
    )
    places = places_of(config)
    remotes = [place.remote for place in places if place.remote is not None]
    attempt, fault = None, None
    if dist.get_local_rank() == 0:
        try:
            make_lock_folder()
            if remotes:
                cache = Path(settings.local) if settings.local else default_cache_folder(*remotes)
                make_cache_folder(cache, shared=settings.local is not None)
                log.info("shards are cached in %s", cache)
                attempt = AttemptFolder(cache)
        except UserError as error:
            fault = str(error)
    opened = dist.all_gather_object(
        RankCache(
            dist.get_global_rank(),
            dist.get_node_rank(),
            tempfile.gettempdir(),
            str(attempt.path) if attempt is not None else None,
            fault,
        )
    )
    check_ranks(opened)
    name = next((rank.attempt for rank in opened if rank.node == dist.get_node_rank() and rank.attempt), None)
    sources = []
    for place in places:
        local = place.local if place.remote is None else name
        assert local is not None
        share = Share(place.name, place.rule, place.value)
        sources.append(Source(place.remote, local, place.split, limit, settings.patience, known, share, place.world))
    return sources, attempt


@dataclass(frozen=True)
class RankCache:
    """What the ranks tell each other of where they cache shards."""

    rank: int
    node: int
    temporary: str
    attempt: str | None
    fault: str | None


def check_ranks(opened: list[RankCache]) -> None:
    """Every node must have a cache, and its ranks one folder for temporary files, where Streaming keeps its locks.

    Raises:
        UserError: names the rank that differs.
    """
    first_of_node: dict[int, RankCache] = {}
    for rank in opened:
        if rank.fault is not None:
            raise UserError(f"node {rank.node}: {rank.fault}" if rank.node else rank.fault)
        first = first_of_node.setdefault(rank.node, rank)
        if len(os.fsencode(rank.temporary)) > LONGEST_TMPDIR:
            raise UserError(
                f"TMPDIR: {rank.temporary} is longer than {LONGEST_TMPDIR} bytes, too long for the sockets that the "
                "loader's workers make in it; set a shorter one"
            )
        if rank.temporary != first.temporary:
            raise UserError(
                f"TMPDIR: rank {first.rank} has {first.temporary} but rank {rank.rank} of the same node has "
                f"{rank.temporary}; set one for all ranks of a node"
            )
