"""A model, asked all questions of a benchmark, by one process or several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from theworld import cli
from theworld.evaluation.score_table import Scored, score_all
from theworld.inference.answer_file import answer_missing, answers_in, derangement, folder_for, start
from theworld.inference.answering import Answerer
from theworld.inference.benchmark_data import Pictured, read_benchmark, read_holdout
from theworld.inference.load_trained import load_trained
from theworld.progress import Progress
from theworld.rank_group import join_ranks, own_devices


@dataclass(frozen=True)
class Request:
    """What to evaluate on what."""

    model: str
    checkpoint: str | None
    bench: str
    data: str
    limit: int | None
    world: str
    seed: int
    out: Path
    batch_size: int
    max_new_tokens: int


def evaluate_model(request: Request) -> tuple[list[Scored], Path]:
    """Answer what has no answer yet, and score all; all ranks call it and get the same.

    Returns:
        The scored answers, and the folder in which they are kept.

    Raises:
        UserError: model or data cannot be used, or another process writes the same evaluation.
    """
    rank, ranks = cli.rank(), cli.world_size()
    device = torch.device(own_devices()[0])
    trained = load_trained(request.model, request.checkpoint, device=device)
    questions, data = read_questions(request, trained.draws_boxes)
    settings = settings_of(request, trained.identity, data)
    folder = folder_for(request.out, settings)
    start(folder, settings)
    answerer = Answerer(trained, request.max_new_tokens, request.world, request.batch_size)
    worlds = derangement([one.stored for one in questions], request.seed) if request.world == "shuffled" else None
    progress = Progress(len(range(rank, len(questions), ranks)), "questions") if rank == 0 else None
    answer_missing(folder, questions, answerer, worlds, rank, ranks, progress)
    if progress is not None:
        progress.close()
    wait_for_all(ranks)
    return score_all([one.question for one in questions], answers_in(folder)), folder


def read_questions(request: Request, draw_boxes: bool) -> tuple[list[Pictured], str]:
    """The questions, and a name for the data."""
    if request.bench == "holdout":
        return read_holdout(Path(request.data).expanduser(), request.limit, draw_boxes)
    return read_benchmark(request.data, request.limit, draw_boxes)


def settings_of(request: Request, model: str, data: str) -> dict[str, Any]:
    """What an answer depends on; batch size and ranks are not among it."""
    settings: dict[str, Any] = {"bench": request.bench, "model": model, "data": data, "world": request.world}
    if request.world == "shuffled":
        settings["seed"] = request.seed
    return {**settings, "max_new_tokens": request.max_new_tokens}


def wait_for_all(ranks: int) -> None:
    """Until every rank has answered its share."""
    if ranks > 1:
        join_ranks()
        distributed.barrier()
