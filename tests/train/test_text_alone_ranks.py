"""Samples without pictures, with two and with one through the real launcher: ranks wait for each other all the same."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.launcher import composer, run
from tests.helpers.tensorboard import logged, losses
from theworld.config.schema import ConvertConfig
from theworld.data.shards.convert import convert

PICTURES = [0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 2]
"""Of each sample. In batches of four, of which each of two ranks has a half: a batch without any, two in which only one
rank has some."""


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "images").mkdir()
    entries = []
    for number, count in enumerate(PICTURES):
        names = [f"{number}-{place}.png" for place in range(count)]
        for place, name in enumerate(names):
            made = io.BytesIO()
            Image.new("RGB", (40, 30), (40 * place, 20 * number, 99)).save(made, "PNG")
            (folder / "images" / name).write_bytes(made.getvalue())
        talk = [{"from": "human", "value": f"What is {number}?"}, {"from": "gpt", "value": f"It is {number} of 12."}]
        entries.append({"id": str(number), "images": names, "conversations": talk})
    (folder / "entries.json").write_text(json.dumps(entries))
    places: dict[str, Any] = {
        "json": str(folder / "entries.json"),
        "images": str(folder / "images"),
        "out": str(folder / "mds"),
    }
    assert convert(ConvertConfig(**places, workers=1)).written == len(PICTURES)
    return folder / "mds"


@pytest.fixture
def launch(data_set: Path, tmp_path: Path) -> Callable[..., tuple[list[float], list[float]]]:
    """Train and evaluate with so many ranks: the losses of the batches and of the evaluations."""

    def train(ranks: int, name: str, *overrides: str) -> tuple[list[float], list[float]]:
        settings = [
            f"train_loader.dataset.remote={data_set}",
            f"train_loader.dataset.local={tmp_path / 'cache'}",
            f"eval_loader.dataset.remote={data_set}",
            f"eval_loader.dataset.local={tmp_path / 'cache-eval'}",
            f"save_folder={tmp_path / name}",
            "train_loader.dataset.shuffle=false",
            "train_loader.num_workers=0",
            "eval_loader.num_workers=0",
            "model.freeze.vision=false",
            "global_train_batch_size=4",
            "device_train_microbatch_size=1",
            "eval_interval=1ep",
            "scheduler.t_warmup=0ba",
        ]
        log = tmp_path / f"{name}.log"
        assert run(composer(ranks, "yamls/smoke.yaml", *settings, *overrides), log) == 0, log.read_text()
        evaluated = logged(tmp_path / name, "metrics/eval/AnswerLoss")
        return losses(tmp_path / name), list(evaluated.values())

    return train


@pytest.mark.slow
@pytest.mark.dist
def test_two_ranks_train_as_one_does_sharded_and_not(
    launch: Callable[..., tuple[list[float], list[float]]], tmp_path: Path
) -> None:
    one = launch(1, "one")
    assert (len(one[0]), len(one[1])) == (3, 1)
    for name, settings in (("ddp", ()), ("fsdp", ("parallelism_config={fsdp: {}}",))):
        two = launch(2, name, *settings)
        assert two[0] == pytest.approx(one[0], rel=1e-4), name
        assert two[1] == pytest.approx(one[1], rel=1e-4), name
    ids = [json.loads(line)["ids"] for rank in (0, 1) for line in (tmp_path / f"fsdp/ledger/rank{rank}.jsonl").open()]
    assert sorted(name for some in ids for name in some) == sorted(map(str, range(len(PICTURES))))
