"""Whatever recipes/ask.py takes, as a model of lmms-eval: greedy answers, one picture a question.

    pip install lmms-eval==0.7.3 'transformers<5' 'huggingface_hub<1' 'numpy<2.2'     # in an environment of its own
    LMMS_EVAL_PLUGINS=benchmarks.harness python -m lmms_eval --model theworld \\
        --model_args pretrained=RUN_OR_REPO --tasks spatialrgpt_bench

Answers are those of recipes/evaluate.py: the same prompt, the same pixels.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from lmms_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
from PIL import Image

from theworld.data.samples.decode import to_rgb
from theworld.errors import UserError
from theworld.inference.answering import Answerer, Asked
from theworld.inference.load_trained import load_trained
from theworld.rank_group import own_devices

LONGEST = 256
"""Tokens of an answer, where a task does not say."""


class TheWorld(lmms):
    """A run's save_folder, an exported folder, a Hub repo, or plain Gemma 3.

    Args:
        pretrained: which.
        checkpoint: of a run; None: the newest.
        world: ``on``, ``off`` or ``zero``, as ``recipes/ask.py --world``.
        batch_size: questions at once at the most.
        others: what lmms-eval hands to every model and this one has no use for.
    """

    is_simple = True

    def __init__(
        self, pretrained: str, checkpoint: str | None = None, world: str = "on", batch_size: int = 1, **others: Any
    ) -> None:
        super().__init__()
        unknown = sorted(set(others) - {"device", "max_batch_size"})
        if unknown:
            raise UserError(f"--model_args {unknown[0]}: unknown; known are pretrained, checkpoint and world")
        if world not in ("on", "off", "zero"):
            raise UserError(f"--model_args world={world}: expected on, off or zero")
        self.trained = load_trained(pretrained, checkpoint, device=torch.device(own_devices()[0]))
        self.answerer = Answerer(self.trained, LONGEST, world, int(batch_size))
        self._rank, self._world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers in the order of the requests.

        Raises:
            UserError: a request has not exactly one picture, which is what this model was trained on.
        """
        answers: list[str] = []
        size = self.answerer.batch_size
        for first in range(0, len(requests), size):
            # Requests of one task have the same settings; those of several come one task after the other.
            some = requests[first : first + size]
            self.answerer.max_new_tokens = max(int(one.args[1].get("max_new_tokens", LONGEST)) for one in some)
            said = self.answerer.answer([self.asked(*one.args) for one in some])
            answers += [cut(answer, one.args[1]) for answer, one in zip(said, some, strict=True)]
        return answers

    def asked(self, question: str, _settings: Any, doc_to_visual: Any, number: Any, task: str, split: str) -> Asked:
        """A request as a question about a picture."""
        pictures = doc_to_visual(self.task_dict[task][split][number])
        if len(pictures) != 1 or not isinstance(pictures[0], Image.Image):
            raise UserError(f"task {task}, question {number}: expected one picture, got {len(pictures)} inputs")
        return Asked((to_rgb(pictures[0]),), question)

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise UserError("theworld: answers one question at a time; tasks of several rounds are not supported")

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise UserError("theworld: writes answers; tasks by likelihood are not supported")


def cut(answer: str, settings: dict[str, Any]) -> str:
    """An answer as far as the first of the texts that are to end it."""
    ends = settings.get("until") or []
    for end in [ends] if isinstance(ends, str) else ends:
        if end:
            answer = answer.partition(end)[0]
    return answer.strip()
