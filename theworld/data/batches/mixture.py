"""What a pass takes of each data set that it mixes: pure arithmetic, as :mod:`~theworld.data.batches.order` is.

A pass over several data sets, the *sources*, visits *copies*: each copy of a sample is an index of its own, so that the
order of a pass knows nothing of sources, and gives each copy exactly once. How many copies a sample has is fixed by the
source's :class:`Portion`, which is written down when the pass begins: all get ``copies``, and ``extras`` of them one
more. The extras are the next ones in a permutation of the source that goes on where the last pass stopped. It is the
order of the keys that :func:`keys_of` gives, arithmetic of our own, so that no release of a library can change it.

A single data set is one source without a name, of which each sample has one copy.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theworld.data.batches.order import Indices, Stage
from theworld.errors import UserError

FROM_THE_START = -1
GOLDEN = 0x9E3779B97F4A7C15
"""Steps of the counter in splitmix64 (Steele, Lea and Flood, 2014), whose mixing the keys use."""
MOST_COPIES = 10_000
"""Of a sample in a pass."""
REPEAT, CHOOSE, PROPORTION = "repeat", "choose", "proportion"


@dataclass(frozen=True)
class Share:
    """How much of a source each pass is to have."""

    name: str
    rule: str = REPEAT
    value: int | float = 1

    @property
    def exact(self) -> Fraction:
        """The value as it was written: 0.1 is a tenth."""
        return Fraction(str(self.value))


@dataclass(frozen=True)
class Portion:
    """What a pass takes of a source."""

    name: str
    samples: int
    """Of the source, when the pass began: its first ones."""
    copies: int
    """Of each of them."""
    extras: int
    """So many of them get one copy more."""
    after: int = FROM_THE_START
    """The key behind which the extras begin; the least key follows on the greatest."""
    seed: int = 0
    """Of the keys."""
    more: str | None = "0"
    """Of samples that come later, which share gets one copy more, as a fraction; None: those are for the next pass."""

    @property
    def grows(self) -> bool:
        """Whether samples that come later join the pass."""
        return self.more is not None

    def describe(self) -> str:
        """A line on how its samples come about."""
        taken = self.copies * self.samples + self.extras
        text = f"{self.name}: {taken:,} of {self.samples:,} samples in a pass"
        if not self.copies:
            return f"{text}, all of them in {math.ceil(self.samples / self.extras):,} passes"
        often = f"{self.copies} times" if self.copies > 1 else "once"
        return f"{text}: each {often}" + (f", {self.extras:,} of them once more" if self.extras else "")

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Portion:
        counts = {key: int(state[key]) for key in ("samples", "copies", "extras", "after", "seed")}
        return cls(str(state["name"]), **counts, more=None if state["more"] is None else str(state["more"]))


def portions(shares: Sequence[Share], samples: Sequence[int], after: dict[str, int], seed: int) -> tuple[Portion, ...]:
    """What a pass that begins now takes.

    Args:
        shares: of the sources, all of one rule.
        samples: of each source.
        after: where the permutation of each source stopped in the pass before, by name.
        seed: of the permutations.

    Raises:
        UserError: a source would have no copy in it, or far too many.
    """
    rule = shares[0].rule
    found = []
    quotas = largest_remainders([share.exact for share in shares], sum(samples)) if rule == PROPORTION else None
    for place, (share, known) in enumerate(zip(shares, samples, strict=True)):
        if rule == REPEAT:
            copies = math.floor(share.exact)
            extras, more = nearest((share.exact - copies) * known), str(share.exact - copies)
        else:
            quota = quotas[place] if quotas is not None else int(share.value)
            (copies, extras), more = divmod(quota, known), None
        if not copies and not extras:
            raise UserError(
                f"train_loader.datasets: {share.name}: {rule} {share.value} of its {known} samples is not one in a "
                "pass; raise it, or leave the source out"
            )
        if copies >= MOST_COPIES:
            raise UserError(
                f"train_loader.datasets: {share.name}: {rule} {share.value} is {copies} copies of each sample"
            )
        found.append(Portion(share.name, known, copies, extras, after.get(share.name, FROM_THE_START), seed, more))
    return tuple(found)


def largest_remainders(weights: Sequence[Fraction], total: int) -> list[int]:
    """Whole numbers that sum to ``total`` and are as the weights: each rounded down, and what is left goes to those
    that lost most, the first of equals first."""
    exact = [weight / sum(weights) * total for weight in weights]
    whole = [math.floor(one) for one in exact]
    by_loss = sorted(range(len(exact)), key=lambda place: (whole[place] - exact[place], place))
    for place in by_loss[: total - sum(whole)]:
        whole[place] += 1
    return whole


def nearest(number: Fraction) -> int:
    """The nearest whole number, a half up."""
    return math.floor(number + Fraction(1, 2))


def keys_of(portion: Portion, first: int, end: int) -> NDArray[np.uint64]:
    """(end - first,) the keys of samples ``first .. end - 1`` of a source: splitmix64 of the sample's number, with a
    start that name and seed give. No two samples of a source have the same."""
    salt = hashlib.blake2b(f"{portion.seed} {portion.name}".encode(), digest_size=8).digest()
    with np.errstate(over="ignore"):
        key = np.arange(first + 1, end + 1, dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(
            int.from_bytes(salt, "big")
        )
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


def next_in_turn(portion: Portion, first: int, end: int, count: int) -> Indices:
    """The ``count`` samples of ``first .. end - 1`` whose keys follow on :attr:`Portion.after`, in that order."""
    keys = keys_of(portion, first, end)
    order = np.argsort(keys)
    start = 0
    if portion.after != FROM_THE_START:
        start = int(np.searchsorted(keys[order], np.uint64(portion.after), side="right"))
    return first + np.roll(order, -start)[:count]


def extras_of(portion: Portion, first: int, end: int) -> Indices:
    """The samples that get one copy more, of those that a pass began with (``first`` is 0) or of some that came later;
    in turn."""
    count = portion.extras
    if first:
        share = Fraction(portion.more or "0")
        # Of all known samples together the right number, whatever they came in.
        count = nearest(share * end) - nearest(share * first)
    return next_in_turn(portion, first, end, count)


def following(portion: Portion) -> int:
    """The key behind which the extras of the next pass begin."""
    if not portion.extras:
        return portion.after
    last = int(extras_of(portion, 0, portion.samples)[-1])
    return int(keys_of(portion, last, last + 1)[0])


@dataclass(frozen=True)
class PassMix:
    """What a pass takes of its sources."""

    portions: tuple[Portion, ...]
    known: tuple[tuple[int, ...], ...]
    """Samples of each source that belong to the pass, at each of its stages."""

    @classmethod
    def begin(cls, parts: tuple[Portion, ...]) -> PassMix:
        """Of a pass that begins."""
        return cls(parts, (tuple(one.samples for one in parts),))

    @classmethod
    def of_pass(cls, state: dict[str, Any], stages: Sequence[Stage]) -> PassMix:
        """Of a saved pass; one that names no mixture is over a single data set.

        Args:
            state: of the pass.
            stages: its stages.
        """
        if "mix" in state:
            return cls.from_state(state["mix"])
        return cls((Portion("", stages[0].samples, 1, 0),), tuple((stage.samples,) for stage in stages))

    @property
    def is_named(self) -> bool:
        """Whether it is one of data sets that have names."""
        return bool(self.portions[0].name)

    def grown(self, samples: Sequence[int]) -> tuple[int, ...]:
        """The samples that belong to the pass where so many of each source are there now."""
        pairs = zip(self.portions, samples, self.known[-1], strict=True)
        return tuple(now if portion.grows else before for portion, now, before in pairs)

    def next_stage(self, known: Sequence[int]) -> PassMix:
        """With one stage more."""
        return PassMix(self.portions, (*self.known, tuple(known)))

    def following(self) -> dict[str, int]:
        """By source, where the next pass goes on."""
        return {one.name: following(one) for one in self.portions}

    def lines(self) -> list[str]:
        """What a pass takes of each data set, for a person; none for a single one."""
        return [one.describe() for one in self.portions] if self.is_named else []

    def check(self, samples: Sequence[int], stages: Sequence[Stage]) -> None:
        """See that a saved mixture can be one of these data sets; a checkpoint may come from anywhere.

        Args:
            samples: of each source.
            stages: of the pass.

        Raises:
            ValueError: it cannot.
        """
        good = len(self.known) == len(stages) and all(len(one) == len(samples) for one in (self.portions, *self.known))
        before: Sequence[int] = [portion.samples for portion in self.portions]
        for known, stage in zip(self.known, stages, strict=False):
            rows = zip(self.portions, before, known, samples, strict=False)
            good = good and all(0 < first <= now <= there for _, first, now, there in rows)
            good = good and stage.samples == copies_at(self, known)
            before = known
        for portion in self.portions:
            share = Fraction(portion.more or 0)
            good = good and 0 <= portion.extras <= portion.samples and 0 <= portion.copies < MOST_COPIES
            good = good and 0 <= share < 1 and FROM_THE_START <= portion.after < 2**64
        if not good:
            raise ValueError("its mixture is not one of these data sets")

    def state_dict(self) -> dict[str, Any]:
        return {"portions": [one.state_dict() for one in self.portions], "known": [list(one) for one in self.known]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> PassMix:
        known = tuple(tuple(int(samples) for samples in stage) for stage in state["known"])
        return cls(tuple(Portion.from_state(one) for one in state["portions"]), known)


@dataclass
class Copies:
    """The copies that a pass has, by their index: of which source, sample, and the how manieth of it.

    They come in *runs* that :func:`~theworld.data.batches.order.pass_order` shuffles as it does shards: copies of
    samples that lie in one shard, each sample once, so that the copies of a sample are as far apart as chance has it.
    """

    source: NDArray[np.int16]
    sample: Indices
    copy: NDArray[np.int32]
    runs: list[int]
    """Copies in each run."""
    ends: list[int]
    """Copies known at each stage."""

    @classmethod
    def of(cls, mix: PassMix, shard_sizes: Sequence[Sequence[int]]) -> Copies:
        """Lay them out; those of a stage come behind those of the stages before.

        Args:
            mix: what the pass takes.
            shard_sizes: samples of each shard, of each source.
        """
        shard_ends = [np.cumsum(np.asarray(sizes, np.int64)) for sizes in shard_sizes]
        rounds: list[tuple[int, int, Indices]] = []
        runs: list[int] = []
        ends: list[int] = []
        before: Sequence[int] = [0] * len(mix.portions)
        for known in mix.known:
            for source, portion in enumerate(mix.portions):
                for copy, samples in rounds_of(portion, before[source], known[source]):
                    rounds.append((source, copy, samples))
                    of_shards = np.bincount(np.searchsorted(shard_ends[source], samples, side="right"))
                    runs += of_shards[of_shards > 0].tolist()
            ends.append(sum(len(samples) for _, _, samples in rounds))
            before = known
        lengths = [len(samples) for _, _, samples in rounds]
        return cls(
            np.repeat(np.asarray([source for source, _, _ in rounds], np.int16), lengths),
            np.concatenate([samples for _, _, samples in rounds]),
            np.repeat(np.asarray([copy for _, copy, _ in rounds], np.int32), lengths),
            runs,
            ends,
        )


def rounds_of(portion: Portion, first: int, end: int) -> list[tuple[int, Indices]]:
    """The copies of samples ``first .. end - 1``: the number of the copy, and the samples that have it, ascending."""
    if first == end:
        return []
    every = np.arange(first, end, dtype=np.int64)
    rounds = [(number, every) for number in range(portion.copies)]
    extras = np.sort(extras_of(portion, first, end))
    return [*rounds, (portion.copies, extras)] if len(extras) else rounds


def copies_at(mix: PassMix, known: Sequence[int]) -> int:
    """Copies that the pass would have with so many samples of each source."""
    total = 0
    for portion, now in zip(mix.portions, mix.grown(known), strict=True):
        later = nearest(Fraction(portion.more or "0") * now) - nearest(Fraction(portion.more or "0") * portion.samples)
        total += portion.copies * now + portion.extras + later
    return total
