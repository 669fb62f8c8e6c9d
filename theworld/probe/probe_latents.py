"""How well a linear reader of the world's tokens tells left, nearer and bigger, for each projector mode."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from theworld.config.schema import ModelConfig
from theworld.data.latents.record import LatentRecord, resolve_record
from theworld.errors import UserError
from theworld.evaluation.intervals import wilson
from theworld.evaluation.score_table import in_columns
from theworld.model.check_model import VAE_STRIDE
from theworld.model.processing import world_pictures
from theworld.model.world_encoder import load_world_encoder
from theworld.probe.linear_reader import read_linearly
from theworld.probe.region_pairs import TASKS, RegionPair, region_pairs
from theworld.probe.token_sets import Reading, readings
from theworld.progress import Progress
from theworld.rank_group import own_devices
from theworld.synthetic.write_sample import MAX_SIZE, MIN_SIZE

PICTURES_AT_ONCE = 8
HELD_OUT = 0.25
FEWEST = 40
CONTROL = "labels shuffled"
"""Source of the line that tells of the reader itself: where answers are dealt out anew, it can only guess."""


@dataclass(frozen=True)
class Figure:
    """One task read in one way; shares in percent of the held-out pictures."""

    accuracy: float
    low: float
    """95 % interval (Wilson)."""
    high: float
    blind_floor: float
    """The better of the two constant answers."""
    right: int
    questions: int


@dataclass(frozen=True)
class Line:
    """One way of reading."""

    source: str
    way: str
    tokens: int
    width: int
    tasks: dict[str, Figure]


@dataclass(frozen=True)
class Probed:
    """The table, and what it was made of."""

    vae: LatentRecord
    seed: int
    trained_on: int
    held_out: int
    lines: list[Line]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def probe_latents(model: ModelConfig, samples: int, seed: int) -> Probed:
    """Render pictures, make their latents with the VAE of ``model`` and read them in every way.

    Args:
        model: the section ``model``; of it ``cosmos``, ``world_image_size``, ``projector.patch`` and
            ``projector.queries`` are used.
        samples: pictures, a quarter of which are held out.
        seed: of pictures, random weights and filters.

    Raises:
        UserError: the VAE is not there, or a size does not fit.
    """
    if samples < FEWEST:
        raise UserError(f"--samples {samples}: expected at least {FEWEST}, of which a quarter is held out")
    check_sizes(model)
    record, vae = resolve_record(model, draw_bboxes=True, weights=True)
    encoder = load_world_encoder(vae.folder).to(own_devices()[0])
    pixels, latents, truths = [], [], []
    progress = Progress(samples, "pictures")
    pairs_of_sample = itertools.islice(region_pairs(seed, model.world_image_size), samples)
    for pairs in in_batches(pairs_of_sample):
        batch = world_pictures([pair.picture for pair in pairs], model.world_image_size)
        with torch.no_grad():
            latents.append(encoder(batch.to(own_devices()[0])).cpu())
        pixels.append(batch)
        truths += [[pair.truths[task] for task in TASKS] for pair in pairs]
        progress.add(len(pairs))
    progress.close()
    ways = readings(torch.cat(latents), torch.cat(pixels), model.projector, seed)
    held_out = round(HELD_OUT * samples)
    return Probed(record, seed, samples - held_out, held_out, read_all(ways, torch.tensor(truths), held_out, seed))


def check_sizes(model: ModelConfig) -> None:
    """All modes are probed, whichever the configuration trains.

    Raises:
        UserError: the sample has no pictures of that size, or the latent does not divide into patches.
    """
    size = model.world_image_size
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise UserError(
            f"model.world_image_size is {size}; expected {MIN_SIZE} to {MAX_SIZE}, as the sample's pictures"
        )
    side, patch = size // VAE_STRIDE, model.projector.patch
    if patch < 1 or side % patch:
        raise UserError(
            f"model.projector.patch is {patch}; expected a divisor of {side}, the side of the latent at "
            f"model.world_image_size {size}: modes patch and pool are probed as well"
        )


def in_batches(pairs: Iterator[RegionPair]) -> Iterator[list[RegionPair]]:
    """Some pictures at a time."""
    while batch := list(itertools.islice(pairs, PICTURES_AT_ONCE)):
        yield batch


def read_all(ways: Iterator[Reading], truths: Tensor, held_out: int, seed: int) -> list[Line]:
    """A line for each reading, and the control, which reads as the first does."""
    lines: list[Line] = []
    control: list[Line] = []
    for reading in ways:
        lines.append(read_one(reading, truths, held_out))
        if not control:
            # All of them: a reader that has learned nonsense may be right more often than not on the true ones.
            order = torch.randperm(len(truths), generator=torch.Generator().manual_seed(seed))
            control.append(replace(read_one(reading, truths[order], held_out), source=CONTROL))
    return [*lines, *control]


def read_one(reading: Reading, truths: Tensor, held_out: int) -> Line:
    """Fit the reader to the first pictures and score it on the last ``held_out``.

    Args:
        reading: features (B, D).
        truths: bool (B, tasks).
        held_out: how many of the last pictures are kept from the fit.
    """
    fitted = len(truths) - held_out
    answers = truths[fitted:]
    said = read_linearly(reading.values[:fitted], truths[:fitted], reading.values[fitted:])
    right, yes = (said == answers).sum(0).tolist(), answers.sum(0).tolist()
    figures = {task: figure_of(right[place], yes[place], held_out) for place, task in enumerate(TASKS)}
    return Line(reading.source, reading.way, reading.tokens, reading.width, figures)


def figure_of(right: int, yes: int, questions: int) -> Figure:
    """One task: how many of the questions were told right, and to how many the answer is yes."""
    low, high = wilson(right, questions)
    return Figure(100 * right / questions, low, high, 100 * max(yes, questions - yes) / questions, right, questions)


def show_probe(probed: Probed) -> str:
    """The table as text for a terminal."""
    head = ["", "read", "tokens", "features"]
    for task in TASKS:
        head += [f"{task} %", "95 %", "floor"]
    rows = [tuple(head)]
    for line in probed.lines:
        row = [line.source, line.way, str(line.tokens), str(line.width)]
        for figure in line.tasks.values():
            row += [f"{figure.accuracy:.1f}", f"{figure.low:.1f}-{figure.high:.1f}", f"{figure.blind_floor:.1f}"]
        rows.append(tuple(row))
    return in_columns(rows)
