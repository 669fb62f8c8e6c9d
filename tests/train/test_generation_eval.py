"""Generated answers while training: those of recipes/evaluate.py, and a run that is the same with and without them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from tests.conftest import SMOKE_YAML, smoke_config
from tests.helpers import launcher
from tests.helpers.several_pictures import several_pictures
from tests.helpers.tensorboard import logged, losses
from theworld.checkpoint.data_only import load_file
from theworld.checkpoint.on_disk import newest_whole_checkpoint
from theworld.data.shards.convert import convert
from theworld.errors import UserError
from theworld.evaluation.score_table import Scored, make_table
from theworld.inference.evaluate_model import Request, evaluate_model
from theworld.synthetic import generate
from theworld.train.callbacks.answer_table import COLUMNS, Shown, markdown
from theworld.train.callbacks.generation_eval import undisturbed
from theworld.train.check_training import check_training
from theworld.train.run import train

LIMIT, TOKENS, PICTURES = 11, 6, 3
GROUPS = ("right", "blind_floor", "undecided", "empty")


def settings(mds: Path, folder: Path, *others: str) -> list[str]:
    return [
        f"train_loader.dataset.remote={mds}",
        f"train_loader.dataset.local={folder / 'cache'}",
        f"save_folder={folder / 'run'}",
        *("train_loader.num_workers=0", "global_train_batch_size=4", "device_train_microbatch_size=2"),
        *("max_duration=5ba", "save_interval=5ba", "optimizer.lr=1.0e-2", *others),
    ]


def asked(mds: Path, batch_size: int = 4) -> str:
    values = f"data: {mds}, limit: {LIMIT}, max_new_tokens: {TOKENS}, batch_size: {batch_size}, pictures: {PICTURES}"
    return f"callbacks={{generation_eval: {{interval: 2ba, {values}}}}}"


@dataclass
class Pair:
    """The save folders of two runs that differ in the callback alone."""

    without: Path
    with_it: Path


@pytest.fixture(scope="module")
def runs(raw_sample: Path, mds_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folders = [tmp_path_factory.mktemp(name) for name in ("without", "with_it")]
    for folder, callback in zip(folders, ("callbacks={}", asked(mds_sample)), strict=True):
        assert train(smoke_config(raw_sample, mds_sample, *settings(mds_sample, folder, callback))) == 0
    return Pair(*(folder / "run" for folder in folders))


def evaluated(run: Path, mds: Path, out: Path) -> list[Scored]:
    """The newest checkpoint asked by the code of recipes/evaluate.py."""
    return evaluate_model(Request(str(run), None, "holdout", str(mds), LIMIT, "on", 0, out, 8, TOKENS))[0]


def text_of(run: Path, name: str) -> str:
    """The last text of that name in TensorBoard's files."""
    (path,) = run.rglob("events.*")
    tensor = EventAccumulator(str(path)).Reload().Tensors(f"{name}/text_summary")[-1].tensor_proto
    return tensor.string_val[0].decode()


def check_figures(run: Path, mds: Path, out: Path) -> None:
    """What was logged after the last batch is what the last checkpoint answers."""
    scored = evaluated(run, mds, out)
    assert any(one.answer for one in scored), "answers that are all empty would tell nothing"
    for line in make_table(scored):
        share = 100 / line.questions
        expected = (line.accuracy, line.blind_floor, share * line.undecided, share * line.empty)
        found = [logged(run, f"generation_eval/{line.name}/{group}") for group in GROUPS]
        assert [list(one) for one in found] == [[2, 4, 5]] * len(GROUPS)
        assert [one[5] for one in found] == pytest.approx(expected, rel=1e-6)
    rows = [[str(number), *Shown([], one).texts] for number, one in enumerate(scored[:PICTURES])]
    assert text_of(run, "generation_eval/answers") == markdown(COLUMNS, rows)


@pytest.mark.slow
def test_the_run_is_the_same_bit_for_bit(runs: Pair) -> None:
    assert losses(runs.without) == losses(runs.with_it)
    lines = [(run / "ledger" / "rank0.jsonl").read_text().splitlines() for run in (runs.without, runs.with_it)]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 5
    first, second = (load_file(found.path) for found in map(newest_whole_checkpoint, vars(runs).values()) if found)
    assert first["state"]["model"].keys() == second["state"]["model"].keys()
    for part in ("model", "optimizers"):
        assert_same(first["state"][part], second["state"][part], part)
    assert_same(first["rng"], second["rng"], "rng")


def assert_same(first: Any, second: Any, where: str) -> None:
    """Nested values are equal, tensors and arrays bit for bit."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for place, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}[{place}]")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert np.array_equal(first, second), where


@pytest.mark.slow
def test_figures_and_table_are_those_of_the_evaluation(runs: Pair, mds_sample: Path, tmp_path: Path) -> None:
    check_figures(runs.with_it, mds_sample, tmp_path)
    (path,) = runs.with_it.rglob("events.*")
    images = EventAccumulator(str(path)).Reload().Tags()["images"]
    assert images == [f"generation_eval/picture {number}" for number in range(PICTURES)]


@pytest.mark.slow
@pytest.mark.dist
def test_ranks_share_the_questions(mds_sample: Path, tmp_path: Path) -> None:
    """11 questions in rounds of 2 for each of 2 ranks: the last round has none for one of them."""
    command = launcher.composer(2, SMOKE_YAML, *settings(mds_sample, tmp_path, asked(mds_sample, batch_size=2)))
    command.append("device_train_microbatch_size=1")
    assert launcher.run(command, tmp_path / "log") == 0, (tmp_path / "log").read_text()[-3000:]
    check_figures(tmp_path / "run", mds_sample, tmp_path / "out")
    ledger = [json.loads(line)["ids"] for path in (tmp_path / "run").rglob("rank*.jsonl") for line in path.open()]
    assert sorted(map(len, ledger)) == [2] * 10


@pytest.mark.slow
def test_each_of_several_sets_is_asked_under_its_name(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One of them with the world off, one without a question that can be scored."""
    generate(tmp_path / "other", samples=8, seed=5, size=160, workers=1)
    convert(smoke_config(tmp_path / "other", tmp_path / "other/mds").convert)
    (tmp_path / "plain").mkdir()
    talk = [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4."}]
    (tmp_path / "plain/entries.json").write_text(json.dumps([{"id": "x", "conversations": talk}]))
    text = {
        "json": str(tmp_path / "plain/entries.json"),
        "images": str(tmp_path / "plain"),
        "out": str(tmp_path / "text"),
    }
    convert(replace(smoke_config(raw_sample, mds_sample).convert, **text))
    sets = [
        f"{{name: one, remote: {mds_sample}}}",
        f"{{name: two, local: {tmp_path}/other/mds, world: false}}",
        f"{{name: text, local: {tmp_path}/text}}",
    ]
    config = smoke_config(
        raw_sample,
        mds_sample,
        *settings(mds_sample, tmp_path, "max_duration=2ba", f"eval_loader.datasets=[{', '.join(sets)}]"),
        f"callbacks={{generation_eval: {{interval: 2ba, limit: {LIMIT}, max_new_tokens: {TOKENS}}}}}",
        "eval_loader.num_workers=0",
        f"eval_loader.dataset.local={tmp_path / 'cache-eval'}",
    )
    caplog.set_level("INFO")
    assert train(config) == 0
    assert "callbacks.generation_eval: text: none of its questions can be scored; it is not asked" in caplog.text
    for name, mds, world in (("one", mds_sample, "on"), ("two", tmp_path / "other/mds", "off")):
        request = Request(str(tmp_path / "run"), None, "holdout", str(mds), LIMIT, world, 0, tmp_path / name, 8, TOKENS)
        scored = evaluate_model(request)[0]
        for line in make_table(scored):
            found = logged(tmp_path / "run", f"generation_eval-{name}/{line.name}/right")
            assert found == {2: pytest.approx(line.accuracy, rel=1e-6)}
        assert scored[0].answer in text_of(tmp_path / "run", f"generation_eval-{name}/answers")
    assert not logged(tmp_path / "run", "generation_eval/overall/right")


@pytest.mark.slow
def test_samples_of_several_pictures_are_asked_with_all(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    """The figures of the evaluation, and pictures side by side in the table."""
    data, folder = several_pictures(tmp_path), tmp_path / "trained"
    assert train(smoke_config(raw_sample, mds_sample, *settings(mds_sample, folder, asked(data)))) == 0
    check_figures(folder / "run", data, tmp_path / "out")
    (path,) = (folder / "run").rglob("events.*")
    table = EventAccumulator(str(path)).Reload()
    shown = [table.Images(f"generation_eval/picture {number}")[-1] for number in range(PICTURES)]
    assert [(image.width, image.height) for image in shown] == [(188, 60), (188, 60), (90, 60)]


def states() -> list[Any]:
    return [random.getstate(), np.random.get_state(), torch.get_rng_state()]


def test_modes_and_generators_are_as_before_also_after_an_error() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    before = states()

    def draw() -> None:
        with undisturbed(model):
            assert not any(module.training for module in model.modules())
            drawn = random.random() + np.random.rand() + float(torch.rand(1))
            raise ZeroDivisionError(drawn)

    with pytest.raises(ZeroDivisionError):
        draw()
    assert [module.training for module in model.modules()] == [True, True, False, False]
    assert_same(before, states(), "generators")


def test_a_cell_is_text_and_no_markup() -> None:
    assert markdown(["a"], [["x | <b>y</b>\n| z"]]) == "| a |\n| --- |\n| x \\| \\<b\\>y\\</b\\> \\| z |"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"interval": "0ba"}, r"callbacks\.generation_eval\.interval: '0ba'"),
        ({"bench": "mmlu"}, r"callbacks\.generation_eval\.bench: 'mmlu' is not known; known are holdout, spatialrgpt"),
        ({"limit": 0}, r"callbacks\.generation_eval\.limit: 0: expected a whole number, 1 or more"),
        ({"pictures": "all"}, r"callbacks\.generation_eval\.pictures: 'all'"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line(
    changes: dict[str, object], line: str, raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    config = smoke_config(raw_sample, mds_sample, f"save_folder={tmp_path}")
    config.callbacks = {"generation_eval": changes}
    with pytest.raises(UserError, match=line):
        check_training(config, 1, False)


def test_a_sharded_model_is_refused_with_the_reason(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    config = smoke_config(raw_sample, mds_sample, f"save_folder={tmp_path}", "parallelism_config={fsdp: {}}")
    config.callbacks = {"generation_eval": {}}
    with pytest.raises(UserError, match=r"not with parallelism_config\.fsdp: each rank answers questions of its own"):
        check_training(config, 1, False)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("null", "generation_eval.data: say where the questions"),
        ("/nowhere", "generation_eval: data /nowhere: no"),
    ],
)
def test_questions_that_are_not_there(data: str, line: str, raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    callback = f"callbacks={{generation_eval: {{data: {data}}}}}"
    with pytest.raises(UserError, match=line):
        train(smoke_config(raw_sample, mds_sample, *settings(mds_sample, tmp_path, callback)))
