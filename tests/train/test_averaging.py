"""The moving average of the weights, from the YAML: it is what is exported, and it goes on after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import SMOKE_YAML
from tests.helpers.launcher import composer, run
from tests.train.test_train import losses, run_config, saved_state
from theworld.checkpoint.moving_average import algorithms_of, take_average
from theworld.commands.average import main as average_command
from theworld.config.load import load_config
from theworld.config.schema import Config
from theworld.errors import UserError
from theworld.hub.export import Snapshot, export
from theworld.hub.resume import write_checkpoint
from theworld.inference.load_trained import load_trained, trained_weights
from theworld.train.check_training import check_training
from theworld.train.run import train

EMA = ("algorithms.ema={half_life: 2ba}", "model.freeze.language=true", "scheduler.t_warmup=0ba", "scheduler.t_max=9ba")


def averaged_run(raw: Path, mds: Path, folder: Path, batches: int) -> Config:
    folder.mkdir(exist_ok=True)
    config = run_config(raw, mds, folder, *EMA, f"max_duration={batches}ba", "save_interval=1ba")
    config.save_num_checkpoints_to_keep = -1
    assert train(config) == 0
    return config


@pytest.fixture(scope="module")
def unbroken(raw_sample: Path, mds_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return averaged_run(raw_sample, mds_sample, tmp_path_factory.mktemp("average"), 4)


def averages(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return dict(algorithms_of(state))["EMA"]["ema_model"]["named_parameters_dict"]


def test_the_average_is_that_of_the_weights_and_goes_on_to_the_bit(
    unbroken: Config, raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    folder = Path(str(unbroken.save_folder))
    before, state = (torch.load(folder / f"ep0-ba{n}-rank0.pt", weights_only=False)["state"] for n in (3, 4))
    for name, average in averages(state).items():
        expected = torch.lerp(averages(before)[name], state["model"][name], 1 - 2 ** (-1 / 2))
        torch.testing.assert_close(average, expected)
        assert not torch.equal(average, state["model"][name])
    averaged_run(raw_sample, mds_sample, tmp_path, 2)
    resumed = averaged_run(raw_sample, mds_sample, tmp_path, 4)
    assert losses(resumed.save_folder) == losses(unbroken.save_folder)
    again = saved_state(resumed)
    for name, average in averages(state).items():
        assert torch.equal(averages(again)[name], average)
        assert torch.equal(again["model"][name], state["model"][name])


def test_what_is_exported_is_the_average_and_a_run_goes_on_from_it(unbroken: Config, tmp_path: Path) -> None:
    folder, state = Path(str(unbroken.save_folder)), saved_state(unbroken)
    found = trained_weights(folder / "ep0-ba4-rank0.pt")
    assert {f"model.{name}" for name in found} == averages(state).keys()
    assert all(torch.equal(found[name.removeprefix("model.")], one) for name, one in averages(state).items())

    snapshot = Snapshot.take(folder, folder / "ep0-ba4-rank0.pt", tmp_path / "snapshot")
    export(snapshot, tmp_path / "out", "own/average")
    uploaded = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(uploaded[name], one) for name, one in found.items())
    description = json.loads((tmp_path / "out" / "resume" / "state.json").read_text())
    back = write_checkpoint(tmp_path / "out", description, tmp_path / "back", sharded=False)
    again = torch.load(back, weights_only=False)["state"]
    assert dict(algorithms_of(again))["EMA"]["ema_weights_active"]
    assert all(torch.equal(averages(again)[name], state["model"][name]) for name in averages(state))
    assert take_average(again)
    assert not take_average({"model": {}})


def test_a_run_goes_on_from_the_hubs_form_as_from_its_own(
    unbroken: Config, raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    config = averaged_run(raw_sample, mds_sample, tmp_path, 2)
    path = Path(str(config.save_folder)) / "ep0-ba2-rank0.pt"
    whole = torch.load(path, weights_only=False)
    assert take_average(whole["state"])
    torch.save(whole, path)
    resumed = averaged_run(raw_sample, mds_sample, tmp_path, 4)
    assert losses(resumed.save_folder) == losses(unbroken.save_folder)


@pytest.mark.slow
@pytest.mark.dist
def test_the_average_goes_on_with_another_number_of_ranks(
    unbroken: Config, raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    """From one rank to two, and back to one."""
    averaged_run(raw_sample, mds_sample, tmp_path, 2)
    data = [f"convert.json={raw_sample / 'openspatial.json'}", f"convert.out={mds_sample}"]
    data += [f"train_loader.dataset.local={tmp_path / 'cache'}", f"save_folder={tmp_path / 'run'}"]
    settings = [*EMA, "max_duration=3ba", "global_train_batch_size=4", "device_train_microbatch_size=2"]
    command = composer(2, SMOKE_YAML, *data, *settings, "train_loader.num_workers=0")
    assert run(command, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    resumed = averaged_run(raw_sample, mds_sample, tmp_path, 4)
    state = saved_state(unbroken)
    for name, average in averages(saved_state(resumed)).items():
        torch.testing.assert_close(average, averages(state)[name], rtol=1e-3, atol=1e-4)


def test_not_with_sharded_weights(mds_sample: Path) -> None:
    settings = (f"convert.out={mds_sample}", "algorithms.ema={half_life: 2ba}", "parallelism_config={fsdp: {}}")
    with pytest.raises(UserError, match=r"algorithms\.ema: not with parallelism_config\.fsdp"):
        check_training(load_config([SMOKE_YAML, *settings]), 1)


def test_the_mean_of_checkpoints_is_a_model(unbroken: Config, tmp_path: Path) -> None:
    folder = Path(str(unbroken.save_folder))
    paths = [folder / f"ep0-ba{batch}-rank0.pt" for batch in (2, 3, 4)]
    assert not average_command([*map(str, paths), "--out", str(tmp_path / "mean")])
    found, weights = load_file(tmp_path / "mean" / "model.safetensors"), [trained_weights(path) for path in paths]
    assert found.keys() == weights[0].keys()
    for name, mean in found.items():
        torch.testing.assert_close(mean, torch.stack([one[name] for one in weights]).mean(0))
        assert not torch.equal(mean, weights[-1][name])
    model = load_trained(str(tmp_path / "mean")).model
    assert torch.equal(model.model.world_projector.start, found["model.world_projector.start"])  # pyright: ignore


def test_checkpoints_that_have_no_mean_are_refused(
    unbroken: Config, raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    path = Path(str(unbroken.save_folder)) / "ep0-ba4-rank0.pt"
    others = {
        "model.projector.patch=4": "holds other weights than",
        "model.cosmos=builtin:tiny": "its bases are not those of",
    }
    out = ["--out", str(tmp_path / "mean")]
    for number, (change, says) in enumerate(others.items()):
        (tmp_path / str(number)).mkdir()
        settings = ("model.freeze.language=true", "max_duration=1ba", "scheduler.t_warmup=0ba")
        config = run_config(raw_sample, mds_sample, tmp_path / str(number), change, *settings)
        assert train(config) == 0
        other = Path(str(config.save_folder)) / "ep0-ba1-rank0.pt"
        if "bases" in says:
            whole = torch.load(other, weights_only=False)
            record = json.loads(whole["state"]["theworld_weights"])
            record["bases"]["gemma"]["fingerprint"] = "another"
            whole["state"]["theworld_weights"] = json.dumps(record)
            torch.save(whole, other)
        with pytest.raises(UserError, match=says):
            average_command([str(path), str(other), *out])
    half = tmp_path / "ep0-ba5-rank0.pt"
    half.write_bytes(path.read_bytes()[:-1000])
    for arguments, says in (
        ([str(path), *out], "one checkpoint is its own mean"),
        ([str(path), str(tmp_path / "none.pt"), *out], "no such checkpoint"),
        ([str(path), str(half), *out], "not a whole checkpoint"),
        ([str(path), str(path), "--out", str(tmp_path)], "is there already"),
    ):
        with pytest.raises(UserError, match=says):
            average_command(arguments)


def test_swa_is_what_is_saved_and_exported_from_its_end_on(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    """Until then it is the weights that train; a run that goes on begins with what was saved."""
    swa = "algorithms.swa={swa_start: 0.25dur, swa_end: 0.75dur, update_interval: 1ba, schedule_swa_lr: false}"
    settings = (swa, "model.freeze.language=true", "scheduler.t_warmup=0ba", "max_duration=4ba", "save_interval=1ba")
    config = run_config(raw_sample, mds_sample, tmp_path, *settings, "train_loader.num_workers=0")
    config.save_num_checkpoints_to_keep = -1
    assert train(config) == 0
    folder = Path(str(config.save_folder))
    states = [torch.load(folder / f"ep0-ba{batch}-rank0.pt", weights_only=False)["state"] for batch in (1, 2, 3)]
    averages = dict(algorithms_of(states[2]))["SWA"]["swa_model"]
    for name, weight in states[2]["model"].items():
        assert torch.equal(weight, averages[f"module.{name}"])
        assert not torch.equal(weight, states[1]["model"][name])
    for state, batch in zip(states, (1, 2, 3), strict=True):
        found = trained_weights(folder / f"ep0-ba{batch}-rank0.pt")
        assert all(torch.equal(found[name.removeprefix("model.")], one) for name, one in state["model"].items())
    with pytest.raises(UserError, match=r"algorithms\.swa: on one GPU only"):
        check_training(config, 2)
