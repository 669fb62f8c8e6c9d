"""The training loss of each data set of a mixture: what the model does on its answer tokens, on any number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import smoke_config
from tests.helpers.launcher import composer, run
from tests.helpers.loader import ids_of, open_data, smoke_on
from tests.helpers.tensorboard import logged, losses
from theworld.config.schema import Config
from theworld.data.batches.microbatches import split_by_length
from theworld.data.shards.convert import convert
from theworld.model.build import load_model
from theworld.synthetic import generate
from theworld.train.run import train

NAMES = ("ours", "theirs")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    generate(folder, samples=6, seed=11, size=160, workers=1)
    convert(smoke_config(folder, folder / "mds").convert)
    return folder / "mds"


def settings(mds_sample: Path, other: Path, folder: Path) -> list[str]:
    return [
        "train_loader.dataset.remote=null",
        f"train_loader.datasets=[{{name: ours, remote: {mds_sample}}}, {{name: theirs, remote: {other}, repeat: 2}}]",
        f"train_loader.dataset.local={folder / 'cache'}",
        "train_loader.num_workers=0",
        "global_train_batch_size=4",
        "device_train_microbatch_size=2",
        "optimizer.lr=0.0",  # the model that is built again here
        "log_interval=4ba",
    ]


def series(folder: Path) -> dict[str, dict[int, float]]:
    return {name: logged(folder, f"metrics/train-{name}/AnswerLoss") for name in NAMES}


def expected(config: Config, interval: int) -> dict[str, dict[int, float]]:
    """The same from the model's loss of each sample alone."""
    data = open_data(config)
    model = load_model(config.model, seed=config.seed).eval()
    found: dict[str, dict[int, float]] = {name: {} for name in NAMES}
    sums: dict[str, list[float]] = {}
    batches = list(data.spec.dataloader)
    data.close()
    for number, batch in enumerate(batches, start=1):
        for one in split_by_length(batch, 1):
            if not ids_of(one):
                continue
            inputs = {name: value for name, value in one.items() if isinstance(value, torch.Tensor)}
            with torch.no_grad():
                output = model(**inputs)
            source = sums.setdefault(one["sample_ids"][0].split("/")[0], [0.0, 0.0])
            source[0] += float(output.loss) * int(output.num_loss_tokens)
            source[1] += int(output.num_loss_tokens)
        if number % interval == 0 or number == len(batches):
            for name, (loss, tokens) in sums.items():
                found[name][number] = loss / tokens
            sums = {}
    return found


def test_the_losses_are_those_of_each_data_set_s_answers(mds_sample: Path, other: Path, tmp_path: Path) -> None:
    given = [*settings(mds_sample, other, tmp_path), "max_duration=1ep"]
    config = smoke_on(tmp_path / "none", None, f"save_folder={tmp_path / 'run'}", *given)
    assert train(config) == 0
    found = series(tmp_path / "run")
    assert {number for one in found.values() for number in one} == {4, 8, 10}
    for name, values in expected(smoke_on(tmp_path / "none", None, *given), 4).items():
        assert found[name] == pytest.approx(values, rel=1e-4)


def test_a_single_data_set_has_none_and_its_loss_to_the_bit(
    mds_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = [mds_sample, tmp_path / "cache", "train_loader.num_workers=0", "max_duration=2ba"]
    assert train(smoke_on(*given, f"save_folder={tmp_path / 'with'}", "log_interval=1ba")) == 0
    assert not any(series(tmp_path / "with").values())
    monkeypatch.setattr("theworld.train.callbacks.source_losses.SourceLosses.batch_start", lambda *_: None)
    assert train(smoke_on(*given, f"save_folder={tmp_path / 'without'}")) == 0
    assert losses(tmp_path / "with") == losses(tmp_path / "without")


def test_after_a_resume_the_first_values_are_of_the_batches_since(
    mds_sample: Path, other: Path, tmp_path: Path
) -> None:
    given = settings(mds_sample, other, tmp_path)
    for folder, ends in (("whole", ["4ba"]), ("stopped", ["3ba", "4ba"])):
        for end in ends:
            target = [f"save_folder={tmp_path / folder}", f"max_duration={end}"]
            assert train(smoke_on(tmp_path / "none", None, *target, *given)) == 0
    whole, stopped = series(tmp_path / "whole"), series(tmp_path / "stopped")
    fourth = expected(smoke_on(tmp_path / "none", None, *given), 1)
    assert [set(one) for one in whole.values()] == [{4}, {4}]
    assert 4 in set().union(*stopped.values())
    for name in NAMES:
        assert stopped[name].get(4) == pytest.approx(fourth[name].get(4), rel=1e-4)


@pytest.mark.slow
@pytest.mark.dist
def test_two_ranks_log_what_one_does(mds_sample: Path, other: Path, tmp_path: Path) -> None:
    found = []
    for ranks in (1, 2):
        given = [*settings(mds_sample, other, tmp_path), f"save_folder={tmp_path / str(ranks)}", "max_duration=1ep"]
        log = tmp_path / f"{ranks}.log"
        assert run(composer(ranks, "yamls/smoke.yaml", *given), log) == 0, log.read_text()
        found.append(series(tmp_path / str(ranks)))
    for name in NAMES:
        assert len(found[0][name]) == 3
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-4)
