"""Generated answers, scored while training: the figures of ``recipes/evaluate.py`` at an interval.

The run is the same with and without it, bit for bit: the training loader is not touched, every module's mode and all
random generators are as they were before, and no gradient is made.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from composer.core import Callback, Event, State
from composer.core.precision import get_precision_context
from composer.loggers import Logger
from composer.utils import create_interval_scheduler, dist
from torch import nn

from theworld.errors import Stopped, UserError
from theworld.evaluation.score_table import Scored, make_table, score_all
from theworld.inference.answering import Answerer, Asked
from theworld.inference.benchmark_data import NoQuestions, Pictured, read_benchmark, read_holdout
from theworld.inference.load_trained import Trained
from theworld.pulse import pulse
from theworld.ranks import raise_together
from theworld.train.callbacks.answer_table import Shown, log_answers
from theworld.train.callbacks.preemption import Preemption

log = logging.getLogger(__name__)

BENCHES = {"holdout": lambda data, *how: read_holdout(Path(data).expanduser(), *how), "spatialrgpt": read_benchmark}
SERIES = "generation_eval"


@dataclass(frozen=True)
class Questions:
    """What is asked of a data set.

    Attributes:
        series: under which its figures are logged.
        questions: in their order.
        world: as :class:`~theworld.inference.answering.Answerer` takes it.
    """

    series: str
    questions: list[Pictured]
    world: str


class GenerationEval(Callback):
    """At each interval and at the end of training, after the save, asks the model questions and logs how it answers.

    Logs for each group of questions (``overall``, ``qualitative``, ``quantitative``, every category)
    ``generation_eval/GROUP/right``, ``blind_floor``, ``undecided`` and ``empty``, in percent, and a table of the first
    answers with their pictures; of several data sets under ``generation_eval-NAME``. Ranks share the questions.

    Args:
        interval: Composer's time string.
        bench: ``holdout`` or ``spatialrgpt``, as ``recipes/evaluate.py --bench``.
        data: where the questions are, as ``--data``, or name to where they are; the default of ``holdout`` is what
            ``eval_loader`` reads.
        limit: the first so many questions, of each data set.
        batch_size: questions at once at the most.
        max_new_tokens: the longest answer.
        pictures: how many answers the table shows.
        draw_boxes: as in training.
        world_off: names of data sets whose samples have no world.

    Raises:
        UserError: there is no such data, or none with such questions.
    """

    def __init__(
        self,
        interval: int | str = "1ep",
        bench: str = "holdout",
        data: str | Mapping[str, str | None] | None = None,
        limit: int = 200,
        batch_size: int = 8,
        max_new_tokens: int = 64,
        pictures: int = 8,
        draw_boxes: bool = True,
        world_off: Sequence[str] = (),
    ) -> None:
        if not data:
            raise UserError(f"callbacks.{SERIES}.data: say where the questions of {bench} are")
        self.due = create_interval_scheduler(interval, include_end_of_training=True)
        self.batch_size, self.max_new_tokens, self.pictures = batch_size, max_new_tokens, pictures
        places = {"": data} if isinstance(data, str) else data
        self.sets: list[Questions] = []
        for name, where in places.items():
            try:
                found = BENCHES[bench](str(where), limit, draw_boxes)[0]
            except NoQuestions as error:
                if len(places) == 1:
                    raise UserError(f"callbacks.{SERIES}: {str(error).removeprefix('--')}") from error
                log.info("callbacks.%s: %s: none of its questions can be scored; it is not asked", SERIES, name)
                continue
            except UserError as error:
                raise UserError(f"callbacks.{SERIES}: {str(error).removeprefix('--')}") from error
            series = f"{SERIES}-{name}" if name else SERIES
            self.sets.append(Questions(series, found, "off" if name in world_off else "on"))
        if not self.sets:
            raise UserError(f"callbacks.{SERIES}.data: no question of the benchmark's kinds in {', '.join(places)}")
        self.asked_after = -1
        """Batches done when the questions were asked."""

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        self.ask_if_due(state, logger, Event.BATCH_CHECKPOINT)

    def epoch_checkpoint(self, state: State, logger: Logger) -> None:
        self.ask_if_due(state, logger, Event.EPOCH_CHECKPOINT)

    def ask_if_due(self, state: State, logger: Logger, event: Event) -> None:
        """Ask at the interval; not where the run is about to leave its node.

        Raises:
            Stopped: the run is to stop before all questions are answered.
        """
        batch = int(state.timestamp.batch)
        if batch == self.asked_after or not self.due(state, event):
            return
        preemption = next(one for one in state.callbacks if isinstance(one, Preemption))
        if preemption.stopped:
            return
        self.asked_after = batch
        for asked in self.sets:
            with undisturbed(state.model):
                answers = self.answers(asked, state, preemption)
            self.log_answers(asked, answers, logger, batch)

    def log_answers(self, asked: Questions, answers: dict[str, str], logger: Logger, batch: int) -> None:
        """The figures of a data set, and its table."""
        scored = score_all([one.question for one in asked.questions], answers)
        figures = figures_of(scored, asked.series)
        right, floor = (figures[f"{asked.series}/overall/{name}"] for name in ("right", "blind_floor"))
        log.info(
            "%s after batch %d: %.1f %% of %d generated answers are right, blind floor %.1f %%",
            *(asked.series, batch, right, len(scored), floor),
        )
        logger.log_metrics(figures)
        if dist.get_global_rank() == 0:
            shown = zip(asked.questions[: self.pictures], scored, strict=False)
            log_answers(logger, asked.series, [Shown(pictured.draw(), one) for pictured, one in shown], batch)

    def answers(self, asked: Questions, state: State, preemption: Preemption) -> dict[str, str]:
        """Id -> answer of all questions of a data set; all ranks get the same.

        Raises:
            Stopped: the run is to stop.
            UserError: on all ranks, if one of them cannot answer.
        """
        rank, ranks = dist.get_global_rank(), dist.get_world_size()
        answerer = Answerer(trained_of(state), self.max_new_tokens, asked.world, self.batch_size)
        own: dict[str, str] = {}
        # As many rounds on every rank: after each they agree whether to go on.
        for first in range(0, len(asked.questions), self.batch_size * ranks):
            some = asked.questions[first + rank : first + self.batch_size * ranks : ranks]
            raise_together(self.answer_some(answerer, some, state, own))
            pulse.batch_done()
            if preemption.agreed(state):
                raise Stopped
        gathered: dict[str, str] = {}
        for answers in dist.all_gather_object(own):
            gathered |= answers
        return gathered

    def answer_some(
        self, answerer: Answerer, some: Sequence[Pictured], state: State, answers: dict[str, str]
    ) -> UserError | None:
        """Answer questions; what went wrong, for all ranks to hear."""
        asked = [Asked(one.draw(), one.question.text) for one in some]
        try:
            with get_precision_context(state.precision):
                said = answerer.answer(asked)
        except UserError as error:
            return UserError(f"callbacks.{SERIES}: {error}")
        answers.update((one.question.id, answer) for one, answer in zip(some, said, strict=True))
        return None


def trained_of(state: State) -> Trained:
    """The model that trains, as what is asked."""
    composed: Any = state.model.module if state.is_model_ddp else state.model
    return Trained(composed.model, composed.processor, "the model that trains", identity="", own=True)


def figures_of(scored: Sequence[Scored], series: str = SERIES) -> dict[str, float]:
    """What is logged: percentages by group."""
    figures: dict[str, float] = {}
    for line in make_table(scored):
        name, share = f"{series}/{line.name}", 100 / line.questions
        figures |= {
            f"{name}/right": line.accuracy,
            f"{name}/blind_floor": line.blind_floor,
            f"{name}/undecided": share * line.undecided,
            f"{name}/empty": share * line.empty,
        }
    return figures


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; after it, every module's mode and every random generator as they were."""
    modes = {module: module.training for module in model.modules()}
    of_python, of_numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            model.eval()
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        random.setstate(of_python)
        np.random.set_state(of_numpy)
