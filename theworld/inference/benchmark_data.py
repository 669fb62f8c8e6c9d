"""Questions with their pictures: SpatialRGPT-Bench's parquet files, or the held-out share of a data set."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from theworld.data.entries.literals import literal
from theworld.data.samples import decode_sample
from theworld.data.samples.boxes import draw_regions
from theworld.data.samples.decode import stored_pictures, stored_turns, to_rgb
from theworld.data.samples.regions import Region, question_alone
from theworld.errors import UserError, describe, first_line
from theworld.evaluation.question_kind import category_of
from theworld.evaluation.questions import Question, is_category
from theworld.evaluation.score import reference_value
from theworld.parquet_rows import read_rows

COLUMNS = ("id", "image", "text_q", "conversations", "bbox", "qa_info")


@dataclass(frozen=True)
class Pictured:
    """A question and its pictures, which are decoded when they are needed: all of them would fill the memory."""

    question: Question
    """Of several pictures with ``<image>`` where each stands."""
    stored: tuple[bytes, ...]
    """The pictures' files."""
    draw: Callable[[], tuple[Image.Image, ...]]
    """Makes the pictures as the model sees them."""


def read_benchmark(where: str, limit: int | None, draw_boxes: bool = True) -> tuple[list[Pictured], str]:
    """SpatialRGPT-Bench, and a name that tells this data from other data.

    Args:
        where: a folder with the benchmark's ``*.parquet``, or ``hf://OWNER/NAME``.
        limit: the first so many questions; None: all.
        draw_boxes: whether the model was trained on pictures with their boxes in them.

    Raises:
        UserError: no such files, pyarrow is not installed, or the files are of another layout.
    """
    files = parquet_files(where)
    found: list[Pictured] = []
    for file in files:
        for row in read_rows(file, COLUMNS):
            if limit is not None and len(found) >= limit:
                break
            found.append(pictured(file, row, draw_boxes))
    if not found:
        raise UserError(f"{where}: there is no question in it")
    return found, data_name(found)


def parquet_files(where: str) -> list[Path]:
    """The parquet files of a folder or of a data set on the Hub."""
    if where.startswith("hf://"):
        folder = fetch_data(where.removeprefix("hf://"))
    else:
        folder = Path(where).expanduser()
        if not folder.is_dir():
            raise UserError(f"--data {where}: no such folder")
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise UserError(f"--data {where}: there is no .parquet file in it")
    return files


def fetch_data(repo: str) -> Path:
    """The local folder of a data set on the Hub."""
    from huggingface_hub import snapshot_download

    name, _, revision = repo.removeprefix("datasets/").partition("@")
    try:
        return Path(
            snapshot_download(name, repo_type="dataset", revision=revision or None, allow_patterns=["*.parquet"])
        )
    except Exception as error:  # the client's many kinds: no such repo, no network, no room
        raise UserError(f"--data hf://{repo}: {first_line(error)}") from error


def pictured(file: Path, row: dict[str, Any], draw_boxes: bool) -> Pictured:
    """One row as a question with its picture, boxes numbered as ``text_q`` numbers them.

    Raises:
        UserError: names the file and the row.
    """
    try:
        question = question_of(row)
        regions = regions_of(row, question)
        image = row["image"]
        stored = image["bytes"] if isinstance(image, dict) else image
        with Image.open(io.BytesIO(stored)) as opened:
            opened.verify()
    except (KeyError, TypeError, ValueError, IndexError, StopIteration, OSError) as error:
        raise UserError(f"{file}, question {row.get('id')!r}: {describe(error)}") from error
    return Pictured(question, (stored,), lambda: (with_boxes(stored, regions if draw_boxes else []),))


def question_of(row: dict[str, Any]) -> Question:
    """A row's question.

    Raises:
        ValueError: its category is not the benchmark's; other errors of values that are not what a row has.
    """
    answer = next(turn for turn in literal(row["conversations"]) if turn["from"] == "gpt")
    category = str(literal(row["qa_info"])["category"])
    if not is_category(category):
        raise ValueError(f"unknown category {category!r}")
    return Question(str(row["id"]), str(row["text_q"]), str(answer["value"]), category)


def regions_of(row: dict[str, Any], question: Question) -> list[Region]:
    """A row's regions, numbered as its question numbers them.

    Raises:
        ValueError: it has fewer boxes than the question names; other errors of values that are not what a row has.
    """
    boxes = [tuple(float(side) for side in box) for box in literal(row["bbox"])]
    if len(boxes) <= max(question.regions, default=-1):
        raise ValueError(f"{len(boxes)} boxes for regions {question.regions}")
    return [Region(number, (box[0], box[1], box[2], box[3])) for number, box in enumerate(boxes)]


def with_boxes(stored: bytes, regions: list[Region]) -> Image.Image:
    """The picture in a file with boxes and their numbers drawn into it."""
    with Image.open(io.BytesIO(stored)) as image:
        return draw_regions(to_rgb(image), regions)


class NoQuestions(UserError):
    """A data set has none that can be scored."""


def read_holdout(folder: Path, limit: int | None, draw_boxes: bool = True) -> tuple[list[Pictured], str]:
    """Questions of the benchmark's kinds in a held-out data set (``convert.holdout``).

    Others (how far from the camera, black and white?) cannot be scored by its rules and are left out.

    Raises:
        UserError: it is no data set, or has no such question.
    """
    from theworld.data.shards.dataset import read_shards
    from theworld.data.shards.read_shard import OpenShard

    if not (folder / "index.json").is_file():
        raise UserError(f"--data {folder}: no data set with an index.json in it")
    found: list[Pictured] = []
    for entry in read_shards(folder):
        shard = OpenShard(folder, entry).reader
        for number in range(len(shard)):
            if limit is None or len(found) < limit:
                found += questions_of(shard[number], draw_boxes)
    if not found:
        raise NoQuestions(f"--data {folder}: no question of the benchmark's kinds in it")
    found = found[:limit]
    return found, data_name(found)


def questions_of(sample: dict[str, Any], draw_boxes: bool) -> list[Pictured]:
    """The questions of one sample that the benchmark's rules can score, each with the pictures that training has shown
    up to it; none that has no picture."""
    files = tuple(picture.data for picture in stored_pictures(sample))
    turns, _, pictures = stored_turns(sample)
    found = []
    for place, turn in enumerate(turns):
        text, shown = question_alone(turns, place, pictures)
        category = category_of(text)
        if shown and category is not None:
            question = Question(f"{sample['id']}/{place}", text, turn.answer, category)
            if is_readable(question):
                found.append(Pictured(question, files[:shown], partial(pictures_of, sample, draw_boxes, shown)))
    return found


def pictures_of(sample: dict[str, Any], draw_boxes: bool, shown: int) -> tuple[Image.Image, ...]:
    """A sample's first pictures as in training."""
    return tuple(Image.fromarray(pixels) for pixels in decode_sample(sample, draw_boxes).pictures[:shown])


def is_readable(question: Question) -> bool:
    """Whether the reference says something that the scorer can compare with."""
    try:
        reference_value(question)
    except UserError:
        return False
    return True


def data_name(found: list[Pictured]) -> str:
    """A hash of questions, references and pictures."""
    digest = hashlib.sha256()
    for one in found:
        asked = one.question
        digest.update(json.dumps([asked.id, asked.text, asked.reference, asked.category]).encode())
        for stored in one.stored:
            digest.update(hashlib.sha256(stored).digest())
    return digest.hexdigest()[:16]
