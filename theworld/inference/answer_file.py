"""Answers on the disk, one line each, so that an evaluation that was stopped goes on where it was.

Each rank appends to a file of its own, and answers the questions that fall to it by their place in the list: however
often and on however many ranks it is started, an answer that is on the disk is not asked for again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from theworld.data.shards.lock import exclusive_lock
from theworld.errors import UserError
from theworld.files import append_line, read_json_lines, write_json
from theworld.inference.answering import Answerer, Asked
from theworld.inference.benchmark_data import Pictured
from theworld.progress import Progress

SETTINGS = "settings.json"


def folder_for(root: Path, settings: Mapping[str, Any]) -> Path:
    """The folder of an evaluation: another model, other data or other settings have another one."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return root / f"{settings['bench']}-{digest}"


def start(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder and write down what it belongs to."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / SETTINGS).exists():
        write_json(folder / SETTINGS, dict(settings), indent=1)


def answers_in(folder: Path) -> dict[str, str]:
    """Id -> answer of all ranks.

    Raises:
        UserError: a question was answered twice.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.glob("answers-rank*.jsonl")):
        for row in read_json_lines(path):
            if row["id"] in found:
                raise UserError(f"{path}: {row['id']!r} was answered twice; remove {folder} and start again")
            found[row["id"]] = row["prediction"]
    return found


def answer_missing(
    folder: Path,
    questions: Sequence[Pictured],
    answerer: Answerer,
    worlds: Sequence[int] | None,
    rank: int,
    ranks: int,
    progress: Progress | None,
) -> None:
    """Answer this rank's questions that have no answer yet.

    Args:
        folder: of the evaluation.
        questions: all of them.
        answerer: the model.
        worlds: place of the question whose picture's world a question gets; None: its own.
        rank, ranks: this process, and how many share the work.
        progress: of this rank's questions; None: not shown.
    """
    path = folder / f"answers-rank{rank}.jsonl"
    # What another rank answered in an earlier launch, with another number of ranks, is done too.
    with exclusive_lock(folder / f"rank{rank}.lock", str(path)):
        done = answers_in(folder)
        own = range(rank, len(questions), ranks)
        missing = [place for place in own if questions[place].question.id not in done]
        if progress is not None:
            progress.add(len(own) - len(missing))
        for first in range(0, len(missing), answerer.batch_size):
            places = missing[first : first + answerer.batch_size]
            asked = [
                Asked(
                    questions[place].draw(),
                    questions[place].question.text,
                    questions[worlds[place]].draw() if worlds is not None else None,
                )
                for place in places
            ]
            for place, answer in zip(places, answerer.answer(asked), strict=True):
                append_line(path, {"id": questions[place].question.id, "prediction": answer})
            if progress is not None:
                progress.add(len(places))


def derangement(pictures: Sequence[bytes], seed: int) -> list[int]:
    """For each question the place of one with another picture, every place once; the same for the same seed.

    Raises:
        UserError: more than half of the questions are about one picture.
    """
    # Questions sorted by picture, each takes the one that stands as many places on as the largest group has.
    chance = {stored: hashlib.sha256(f"{seed}".encode() + stored).digest() for stored in set(pictures)}
    order = sorted(range(len(pictures)), key=lambda place: (chance[pictures[place]], place))
    largest = max(Counter(pictures).values())
    if 2 * largest > len(pictures):
        raise UserError("--world shuffled needs more pictures: over half of the questions are about the same one")
    taken = [0] * len(pictures)
    for position, place in enumerate(order):
        taken[place] = order[(position + largest) % len(order)]
    return taken
