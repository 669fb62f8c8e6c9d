"""The page of a data set's samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.samples.decode import box_owners, decode_sample, stored_turns
from theworld.data.samples.regions import unique_regions
from theworld.errors import UserError
from theworld.files import read_json_lines
from theworld.pages.page_file import render
from theworld.pages.pick_samples import StoredSamples
from theworld.pages.shown_sample import ShownSample, show_sample, undrawn


@dataclass(frozen=True)
class Wanted:
    """Which samples a page is to show.

    Attributes:
        count: how many.
        ids: these instead.
        where: truncated, rejected or irregular ones; None: any.
        seed: of the choice.
    """

    count: int = 24
    ids: Sequence[str] = ()
    where: str | None = None
    seed: int = 17


def preview(root: Path, wanted: Wanted, encoder: SampleEncoder | None = None, draw_bboxes: bool = True) -> str:
    """The page.

    Args:
        root: the folder of ``convert.out``.
        wanted: which samples.
        encoder: the model's, which counts tokens and cuts turns as training does; None: neither.
        draw_bboxes: as in training.

    Raises:
        UserError: there is no such data set or sample, or truncated ones are wanted and the model is not known.
    """
    if wanted.where == "truncated" and encoder is None:
        raise UserError("--where truncated: give the model with --yaml YAML; what is cut follows from its max_seq_len")
    stored = StoredSamples(root)

    def show(place: int) -> ShownSample:
        return show_sample(stored[place], stored.generation(place), encoder, draw_bboxes)

    rejected: list[dict[str, Any]] = []
    places: list[int] = []
    if wanted.where == "rejected":
        rejected = rejected_of(root)
        how = f"{min(wanted.count, len(rejected))} of {len(rejected):,} rejected entries are shown."
    elif wanted.ids:
        places, how = stored.places_of(wanted.ids), "Shown: those that were asked for."
    elif wanted.where is not None:
        kind = wanted.where
        places, looked = stored.search(lambda sample: is_of_kind(sample, kind, encoder), wanted.count, wanted.seed)
        how = f"{len(places)} {kind} ones are shown, found among {looked:,} taken by chance."
    else:
        places = stored.some(wanted.count, wanted.seed)
        how = f"{len(places)} are shown, taken by chance (seed {wanted.seed})."
    shown = [show(place) for place in places]
    return render(
        "preview.html",
        "preview.js",
        name=root.resolve().name,
        total=len(stored),
        generations=len(stored.snapshot.generations),
        how=how,
        counted=encoder is not None,
        samples=shown,
        masked=any(region.mask for one in shown for region in one.regions),
        rejected=rejected[: wanted.count],
        rejected_total=len(rejected),
    )


def is_of_kind(sample: dict[str, Any], kind: str, encoder: SampleEncoder | None) -> bool:
    """Whether a stored sample is truncated, or irregular; no more of it is looked at than that takes."""
    if kind == "irregular":
        decoded = decode_sample(sample, draw_bboxes=False)
        return bool(decoded.problems or undrawn(decoded.turns, len(unique_regions(sample["bbox"], box_owners(sample)))))
    assert encoder is not None
    turns, _, pictures = stored_turns(sample)
    return encoder.encode_turns(turns, pictures)[2] < len(turns)


def rejected_of(root: Path) -> list[dict[str, Any]]:
    """The lines of ``rejected.jsonl``: id, reason, detail.

    Raises:
        UserError: it is damaged.
    """
    path = root / "rejected.jsonl"
    try:
        lines = read_json_lines(path)
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error})") from error
    return [{key: str(line.get(key) or "") for key in ("id", "reason", "detail")} for line in lines]
