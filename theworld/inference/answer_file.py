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
Slot = tuple[int, int]
"""A picture of a question: the question's place among all, the picture's among its own."""


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
    worlds: Sequence[Sequence[Slot]] | None,
    rank: int,
    ranks: int,
    progress: Progress | None,
) -> None:
    """Answer this rank's questions that have no answer yet.

    Args:
        folder: of the evaluation.
        questions: all of them.
        answerer: the model.
        worlds: of :func:`derangement`: the pictures whose worlds each question gets; None: its own.
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
            asked = [drawn(questions, place, worlds) for place in places]
            for place, answer in zip(places, answerer.answer(asked), strict=True):
                append_line(path, {"id": questions[place].question.id, "prediction": answer})
            if progress is not None:
                progress.add(len(places))


def drawn(questions: Sequence[Pictured], place: int, worlds: Sequence[Sequence[Slot]] | None) -> Asked:
    """The question at a place with its pictures made, and those whose worlds it gets."""
    others = None if worlds is None else tuple(questions[at].draw()[number] for at, number in worlds[place])
    return Asked(questions[place].draw(), questions[place].question.text, others)


def derangement(pictures: Sequence[Sequence[bytes]], seed: int) -> list[tuple[Slot, ...]]:
    """For each picture of each question another one, every one once; the same for the same seed.

    No question gets a picture of its own, nor of one that has a picture in common with it, be it by way of others.

    Args:
        pictures: files of each question, one or more.
        seed: another one, another order.

    Raises:
        UserError: more than half of all are of questions that have pictures in common.
    """
    # Sorted by what they have in common, each takes the one that stands as many places on as the largest group has.
    groups = groups_of(pictures, seed)
    slots = [(place, number) for place, own in enumerate(pictures) for number in range(len(own))]
    order = sorted(slots, key=lambda slot: (groups[slot[0]], slot))
    largest = max(Counter(groups[place] for place, _ in slots).values())
    if 2 * largest > len(slots):
        raise UserError("--world shuffled needs more pictures: over half of the questions are about the same ones")
    taken = {slot: order[(position + largest) % len(order)] for position, slot in enumerate(order)}
    return [tuple(taken[place, number] for number in range(len(own))) for place, own in enumerate(pictures)]


def groups_of(pictures: Sequence[Sequence[bytes]], seed: int) -> list[bytes]:
    """A name by chance for each question, the same for those that have a picture in common."""
    chance = {one: hashlib.sha256(f"{seed}".encode() + one).digest() for own in pictures for one in own}
    leader = {name: name for name in chance.values()}

    def least(name: bytes) -> bytes:
        while leader[name] != name:
            leader[name] = name = leader[leader[name]]
        return name

    for own in pictures:
        joined = [least(chance[one]) for one in own]
        leader.update(dict.fromkeys(joined, min(joined)))
    return [least(chance[own[0]]) for own in pictures]
