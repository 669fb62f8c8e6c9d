"""What is taken from a repo's ``resume/``: known keys with the values that a run writes there, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from theworld.checkpoint.pass_proof import PROOF, RunProof
from theworld.checkpoint.weights import RECORD

TAKEN: dict[str, type | tuple[type, ...]] = {
    "optimizers": dict,
    "schedulers": dict,
    "algorithms": (dict, list, tuple),
    "callbacks": dict,
    "scaler": dict,
    "timestamp": dict,
    "rank_zero_seed": int,
    "train_metrics": (dict, type(None)),
    "eval_metrics": (dict, type(None)),
    "run_name": str,
    "dataset_state": dict,
    "metadata": dict,
    RECORD: str,
    PROOF: str,
}
"""Keys of Composer's state beside the weights, and this project's own. Composer takes algorithms by the names of those
that the run itself has."""
NUMBERS_OF_LINES = {"launches.jsonl": ("launch", "resumed_batch"), "passes.jsonl": ("launch", "pass", "batches")}
LONGEST_LINE = 16 << 20
"""Of a ledger: a batch of ten thousand samples has 200 kB."""
NUMBERS_OF_LEDGER = ("launch", "batch")


def plain_state(whole: Any) -> dict[str, Any]:
    """The known parts of a decoded checkpoint.

    Raises:
        ValueError, TypeError, KeyError: one of them is of another form.
    """
    if not isinstance(whole, dict) or not isinstance(whole.get("state"), dict):
        raise TypeError("it is not a state")
    state = {key: value for key, value in whole["state"].items() if key in TAKEN}
    for key, value in state.items():
        if not isinstance(value, TAKEN[key]):
            raise TypeError(f"{key} is a {type(value).__name__}")
    if RECORD not in state:
        raise KeyError(RECORD)
    if PROOF in state:
        RunProof.from_text(state[PROOF])
    for of_rank in whole.get("rng") or ():
        check_random(of_rank)
    return {"state": state, "rng": whole.get("rng")}


def check_random(of_rank: Mapping[str, Any]) -> None:
    """See that a rank's random states are such, by setting generators to them that nothing else uses.

    Raises:
        ValueError, TypeError, KeyError: one is not.
    """
    setters: dict[str, Callable[[Any], Any]] = {
        "python": random.Random().setstate,
        "numpy": np.random.RandomState().set_state,
        "torch": torch.Generator().set_state,
    }
    for key, value in of_rank.items():
        if key in setters:
            try:
                setters[key](value)
            except RuntimeError as error:
                raise ValueError(f"rng of {key}: {error}") from error
        elif key != "cuda" or not isinstance(value, (torch.Tensor, list)):
            raise TypeError(f"rng: {key} is a {type(value).__name__}")


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, one at a time, without what follows the last line feed.

    Raises:
        ValueError: one has no end.
    """
    with path.open("rb") as file:
        while text := file.readline(LONGEST_LINE):
            if text.endswith(b"\n"):
                yield text
            elif len(text) == LONGEST_LINE:
                raise ValueError(f"a line of {path.name} has more than {LONGEST_LINE} bytes")


def check_lines(path: Path) -> None:
    """See that each whole line of a ledger or of ``launches.jsonl`` is an object with its numbers.

    Raises:
        ValueError: one is not; says which.
    """
    wanted = NUMBERS_OF_LINES.get(path.name, NUMBERS_OF_LEDGER)
    for number, text in enumerate(whole_lines(path), start=1):
        line = json.loads(text)
        if not isinstance(line, dict) or not all(type(line.get(key)) is int for key in wanted):
            raise ValueError(f"line {number} of {path.name} is of another form")
