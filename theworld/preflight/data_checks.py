"""The data set: what is there, how long its samples are, what of them is cut or left out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from theworld.config.data_places import NamedPlace, places_of
from theworld.config.schema import Config
from theworld.data.batches.expectation import promised_samples, remember
from theworld.data.batches.mixture import PassMix, Share, copies_at, portions
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.cache.snapshot import Snapshot, mix, read_snapshot
from theworld.data.samples.decode import stored_turns
from theworld.errors import UserError
from theworld.evaluation.intervals import wilson
from theworld.model.processing import without_world
from theworld.monitor.status_table import size
from theworld.pages.pick_samples import StoredSamples
from theworld.preflight.verdicts import FAIL, OK, UNKNOWN, WARN, Verdict
from theworld.train.records import earlier_starts

SAMPLES = 2000
"""Looked at for the shares; all, where there are fewer."""
MOST_CUT = 5.0
"""Percent of samples that may be cut before it is a warning."""
BINS = 12


@dataclass(frozen=True)
class DataSets:
    """The data sets that a run trains on."""

    places: list[NamedPlace]
    snapshots: list[Snapshot]

    @classmethod
    def read(cls, config: Config) -> DataSets:
        """Read their manifests.

        Raises:
            UserError: the configuration does not say where one is, or it is not there.
        """
        places = places_of(config.train_loader)
        return cls(places, [read_snapshot(origin_of(place)) for place in places])

    @property
    def together(self) -> Snapshot:
        """As one."""
        return mix([place.name for place in self.places], self.snapshots)

    def first_pass(self, seed: int) -> PassMix:
        """What a pass takes of them."""
        shares = [Share(place.name, place.rule, place.value) for place in self.places]
        return PassMix.begin(portions(shares, [one.samples for one in self.snapshots], {}, seed))


def several_pictures(config: Config) -> bool:
    """Whether samples may have several pictures; no where the data sets cannot be read, which other checks say."""
    try:
        return DataSets.read(config).together.several_pictures
    except UserError:
        return False


def origin_of(place: NamedPlace) -> str:
    """Where a data set is."""
    if place.origin is None:
        raise UserError("train_loader.dataset.remote: not set")
    return place.origin


def check_data_set(config: Config) -> Verdict:
    """What the data set holds, from its manifest."""
    data_sets = DataSets.read(config)
    snapshot = data_sets.together
    promised = promised_samples(snapshot)
    figures = {
        "samples": snapshot.samples,
        "generations": len(snapshot.generations),
        "shards": len(snapshot.shards),
        "bytes": sum(snapshot.shard_bytes),
        "json_samples": promised,
    }
    empty = [one.source for one in data_sets.snapshots if not one.samples]
    if empty:
        return Verdict("data set", FAIL, f"{empty[0]}: holds no sample yet", figures)
    share = "" if promised is None else f" ({100 * snapshot.samples / max(promised, 1):.1f} % of what the JSON names)"
    text = (
        f"{snapshot.samples:,} samples{share} in {len(snapshot.generations)} generations, {len(snapshot.shards):,} "
        f"shards, {size(sum(snapshot.shard_bytes))}"
    )
    if data_sets.places[0].name:
        pairs = zip(data_sets.places, data_sets.snapshots, strict=True)
        text += f": {', '.join(f'{place.name} {one.samples:,}' for place, one in pairs)}"
    return Verdict("data set", OK, text, figures)


def check_steps(config: Config, samples_per_second: float | None) -> Verdict:
    """Optimizer steps of a pass, and its hours at a rate of all ranks together."""
    data_sets = DataSets.read(config)
    first = data_sets.first_pass(config.seed)
    expectation = remember(config, earlier_starts(Path(str(config.save_folder))), data_sets.together)
    samples = max(copies_at(first, first.known[-1]), expectation.copies(data_sets.snapshots, first) or 0)
    steps = math.ceil(samples / config.global_train_batch_size)
    figures = {"steps": steps, "samples": samples}
    text = f"{steps:,} steps of {config.global_train_batch_size} samples"
    if samples_per_second is None:
        return Verdict("a pass", OK, f"{text}; hours with --samples-per-second", figures)
    hours = samples / samples_per_second / 3600
    return Verdict("a pass", OK, f"{text}, {hours:,.1f} hours", {**figures, "hours": hours})


@dataclass
class Shares:
    """What was found in samples taken by chance."""

    looked: int = 0
    cut: int = 0
    """Samples of which some turn is beyond max_seq_len."""
    turns: int = 0
    turns_cut: int = 0
    irregular: int = 0
    """Samples of which a turn was left out, since its question or answer cannot be used."""
    useless: int = 0
    """Samples without any answer to train on."""
    lengths: list[int] = field(default_factory=list)
    """Tokens of each."""


def check_samples(config: Config, encoder: SampleEncoder, seed: int) -> list[Verdict]:
    """Shares of samples cut and irregular with their intervals, and their lengths."""
    places = [(origin_of(place), place.world) for place in places_of(config.train_loader)]
    away = [where for where, _ in places if "://" in where]
    if away:
        return [Verdict("samples", UNKNOWN, f"{away[0]}: the shards are not on this machine")]
    shares = Shares()
    for where, world in places:
        stored = StoredSamples(Path(where))
        own = encoder if world else SampleEncoder(without_world(encoder.processor), encoder.max_seq_len)
        look_at(stored, own, stored.some(math.ceil(SAMPLES / len(places)), seed), shares)
    return [cut_verdict(shares, encoder), irregular_verdict(shares), length_verdict(shares, encoder)]


def look_at(stored: StoredSamples, encoder: SampleEncoder, places: list[int], shares: Shares) -> None:
    """Render and tokenize samples as training does, and count what is found; pictures are not decoded."""
    for place in places:
        sample = stored[place]
        turns, problems, pictures = stored_turns(sample)
        shares.looked += 1
        shares.irregular += bool(problems)
        if not turns:
            shares.useless += 1
            continue
        ids, _, kept = encoder.encode_turns(turns, pictures)
        shares.lengths.append(len(ids))
        shares.turns += len(turns)
        shares.turns_cut += len(turns) - kept
        shares.cut += kept < len(turns)
        shares.useless += kept == 0


def with_interval(part: int, whole: int) -> str:
    """A share with its 95 % interval."""
    low, high = wilson(part, whole)
    return f"{100 * part / max(whole, 1):.2f} % ({low:.2f} to {high:.2f})"


def cut_verdict(shares: Shares, encoder: SampleEncoder) -> Verdict:
    """Whether ``max_seq_len`` cuts much."""
    low, _ = wilson(shares.cut, shares.looked)
    figures = {
        "looked_at": shares.looked,
        "samples_cut_percent": percent(shares.cut, shares.looked),
        "samples_cut_interval": wilson(shares.cut, shares.looked),
        "turns_cut_percent": percent(shares.turns_cut, shares.turns),
    }
    samples, answers = with_interval(shares.cut, shares.looked), with_interval(shares.turns_cut, shares.turns)
    text = f"{samples} of the samples and {answers} of the answers are beyond max_seq_len={encoder.max_seq_len}"
    return Verdict("cut", WARN if low > MOST_CUT else OK, text, figures)


def irregular_verdict(shares: Shares) -> Verdict:
    """Masks against boxes, and answers that cannot be used."""
    figures = {
        "irregular_percent": percent(shares.irregular, shares.looked),
        "useless_percent": percent(shares.useless, shares.looked),
    }
    text = (
        f"{with_interval(shares.irregular, shares.looked)} have a turn whose regions or text cannot be used, "
        f"{with_interval(shares.useless, shares.looked)} nothing to train on"
    )
    state = FAIL if shares.looked and shares.useless == shares.looked else WARN if shares.useless else OK
    return Verdict("masks and boxes", state, text, figures)


def length_verdict(shares: Shares, encoder: SampleEncoder) -> Verdict:
    """Tokens a sample."""
    if not shares.lengths:
        return Verdict("tokens", UNKNOWN, "no sample has a turn that fits")
    processor = encoder.processor
    image = processor.image_seq_length
    world = processor.num_world_tokens + 2 if processor.enable_world else 0
    lengths = np.asarray(shares.lengths)
    middle, most = (int(value) for value in np.percentile(lengths, (50, 99)))
    counts, edges = np.histogram(lengths, BINS)
    figures = {
        "median": middle,
        "percentile_99": most,
        "longest": int(lengths.max()),
        "image": image,
        "world": world,
        "histogram": {"edges": [float(edge) for edge in edges], "counts": [int(count) for count in counts]},
    }
    text = (
        f"{sparkline(counts)} median {middle:,}, 99 % below {most:,}, longest {lengths.max():,}; of each {image} for "
        f"an image and {world} for its world"
    )
    return Verdict("tokens a sample", OK, text, figures)


def sparkline(counts: np.ndarray) -> str:
    """A histogram in a word."""
    marks = " ▁▂▃▄▅▆▇█"
    return "".join(marks[math.ceil(8 * count / max(int(counts.max()), 1))] for count in counts)


def percent(part: int, whole: int) -> float:
    """A share in percent; 0 of nothing."""
    return 100 * part / max(whole, 1)
