"""Whatever recipes/ask.py takes, as a model of VLMEvalKit, and SpatialRGPT-Bench as a data set of its.

    pip install ms-vlmeval==0.0.20 ...                      # VLMEvalKit on PyPI, in an environment of its own
    python -m benchmarks.harness.vlmevalkit RUN_OR_REPO --data SpatialRGPT-Bench RealWorldQA \\
        --bench hf://a8cheng/SpatialRGPT-Bench --work-dir OUT

VLMEvalKit finds models and data sets in tables of its own code; this adds one to each and hands what it does not know
itself on to VLMEvalKit's command line. Answers are those of recipes/evaluate.py: the same prompt, the same pixels.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd  # pyright: ignore[reportMissingImports, reportMissingModuleSource]
import torch
import vlmeval.dataset  # pyright: ignore[reportMissingImports]
from PIL import Image
from vlmeval import run as kit  # pyright: ignore[reportMissingImports]
from vlmeval.config import supported_VLM  # pyright: ignore[reportMissingImports]
from vlmeval.dataset.image_base import ImageBaseDataset  # pyright: ignore[reportMissingImports]
from vlmeval.smp import load  # pyright: ignore[reportMissingImports]
from vlmeval.vlm.base import BaseModel  # pyright: ignore[reportMissingImports]

from theworld import cli
from theworld.data.samples.decode import to_rgb
from theworld.errors import UserError
from theworld.evaluation.questions import Question
from theworld.evaluation.score_table import groups_of, make_line, score_all
from theworld.inference.answering import Answerer, Asked
from theworld.inference.benchmark_data import Pictured, read_benchmark
from theworld.inference.load_trained import load_trained
from theworld.rank_group import own_devices

MODEL, BENCH = "theworld", "SpatialRGPT-Bench"
LONGEST = 256
"""Tokens of an answer."""


class TheWorld(BaseModel):
    """A run's save_folder, an exported folder, a Hub repo, or plain Gemma 3.

    Args:
        pretrained: which.
        checkpoint: of a run; None: the newest.
        world: ``on``, ``off`` or ``zero``, as ``recipes/ask.py --world``.
        max_new_tokens: the longest answer.
    """

    INTERLEAVE = False
    allowed_types: ClassVar = ["text", "image"]

    def __init__(self, pretrained: str, checkpoint: str | None, world: str, max_new_tokens: int) -> None:
        super().__init__()
        trained = load_trained(pretrained, checkpoint, device=torch.device(own_devices()[0]))
        self.answerer = Answerer(trained, max_new_tokens, world, batch_size=1)

    def generate_inner(self, message: list[dict[str, str]], dataset: str | None = None) -> str:
        """The answer to a message of parts, each ``{type: text | image, value: text or the picture's path}``.

        Raises:
            UserError: it has not exactly one picture, which is what this model was trained on.
        """
        pictures = [part["value"] for part in message if part["type"] == "image"]
        if len(pictures) != 1:
            raise UserError(f"{dataset}: expected one picture a question, got {len(pictures)}")
        question = "\n".join(part["value"] for part in message if part["type"] == "text")
        with Image.open(pictures[0]) as picture:
            return self.answerer.answer([Asked((to_rgb(picture),), question)])[0]


class SpatialRGPTBench(ImageBaseDataset):
    """The benchmark, its boxes drawn into the pictures, scored by the rules of :mod:`theworld.evaluation`."""

    TYPE = "VQA"
    DATASET_URL: ClassVar = {BENCH: ""}
    DEFAULT_JUDGE = "rules"
    where = ""
    """The folder of its parquet files, or ``hf://OWNER/NAME``."""

    def load_data(self, dataset: str) -> pd.DataFrame:
        """Questions, references and categories; pictures are written when a question is asked."""
        if not self.where:
            raise UserError(f"--bench is needed: where the parquet files of {BENCH} are, a folder or hf://OWNER/NAME")
        found, name = read_benchmark(self.where, None)
        self.pictures: dict[str, Pictured] = {one.question.id: one for one in found}
        self.numbers = {key: number for number, key in enumerate(self.pictures)}  # an id may be no file's name
        self.folder = Path(self.img_root) / name  # other data must not meet these pictures
        return pd.DataFrame(
            {
                "index": [one.question.id for one in found],
                "question": [one.question.text for one in found],
                "answer": [one.question.reference for one in found],
                "category": [one.question.category for one in found],
            }
        )

    def build_prompt(self, line: Any) -> list[dict[str, str]]:
        """A question as VLMEvalKit hands it to a model: the path of its picture and its text."""
        line = self.data.iloc[line] if isinstance(line, int) else line
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.numbers[line['index']]}.png"
        if not path.exists():
            self.pictures[line["index"]].draw()[0].save(path)
        return [{"type": "image", "value": str(path)}, {"type": "text", "value": line["question"]}]

    def evaluate(self, eval_file: str, **_judge: Any) -> dict[str, float]:
        """Group -> percent right, and how many answers are undecided; no model judges."""
        # A table or a list of rows, as PRED_FORMAT says; an empty answer comes back from a sheet as NaN.
        rows = pd.DataFrame(load(eval_file)).fillna("").astype(str).to_dict("records")
        questions = [Question(row["index"], row["question"], row["answer"], row["category"]) for row in rows]
        scored = score_all(questions, {row["index"]: row["prediction"] for row in rows})
        lines = [make_line(name, group) for name, group in groups_of(scored).items()]
        return {line.name: line.accuracy for line in lines} | {"undecided": float(lines[0].undecided)}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.harness.vlmevalkit",
        description="VLMEvalKit with this model; other arguments are its own (python -m vlmeval --help).",
    )
    parser.add_argument("pretrained", help="a run's save_folder, an exported folder, a Hub repo, or plain Gemma 3")
    parser.add_argument("--checkpoint", help="of a run; the newest if not given")
    parser.add_argument("--world", choices=["on", "off", "zero"], default="on")
    parser.add_argument("--max-new-tokens", type=int, default=LONGEST)
    parser.add_argument("--bench", default="", help=f"where {BENCH} is: a folder of its parquet files, or hf://...")
    args, others = parser.parse_known_args(argv)
    SpatialRGPTBench.where = args.bench
    vlmeval.dataset.DATASET_CLASSES.append(SpatialRGPTBench)
    supported_VLM[MODEL] = partial(
        TheWorld, args.pretrained, args.checkpoint, args.world, max_new_tokens=args.max_new_tokens
    )
    sys.argv[1:] = ["--model", MODEL, *others]
    kit.main()
    return 0


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
