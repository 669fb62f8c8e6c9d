"""A run through the library, in this process: what trains, what stays, what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint._nested_dict import flatten_state_dict

from tests.conftest import smoke_config
from tests.helpers.tensorboard import logged, losses
from theworld.checkpoint.on_disk import newest_whole_checkpoint
from theworld.config.schema import Config
from theworld.model.build import load_model
from theworld.train.run import train

SETTINGS = ("global_train_batch_size=4", "device_train_microbatch_size=2", "train_loader.num_workers=0")


def run_config(raw: Path, mds: Path, folder: Path, *overrides: str) -> Config:
    return smoke_config(
        raw,
        mds,
        f"save_folder={folder / 'run'}",
        f"train_loader.dataset.local={folder / 'cache'}",
        *SETTINGS,
        *overrides,
    )


def saved_state(config: Config) -> dict[str, Any]:
    checkpoint = newest_whole_checkpoint(Path(str(config.save_folder)))
    assert checkpoint is not None
    return torch.load(checkpoint.path, weights_only=False)["state"]


def moved_weights(config: Config) -> set[str]:
    """Names in the checkpoint whose values differ from the model as it is before training."""
    before = load_model(config.model, seed=config.seed).state_dict()
    after = {name.removeprefix("model."): value for name, value in saved_state(config)["model"].items()}
    unknown = after.keys() - before.keys() - {name.removeprefix("model.") for name in before}
    assert not unknown, "names of the checkpoint must be those of the model"
    before = {name.removeprefix("model."): value for name, value in before.items()} | before
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


@pytest.fixture(scope="module")
def projector_run(raw_sample: Path, mds_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """One pass with everything frozen but the projector."""
    folder = tmp_path_factory.mktemp("projector")
    # A CPU's operations a second are not known to Composer.
    speed = "callbacks.speed_monitor={window_size: 2, gpu_flops_available: 1.0e+9}"
    config = run_config(
        raw_sample, mds_sample, folder, "model.freeze.language=true", "save_num_checkpoints_to_keep=2", speed
    )
    config.save_interval = "2ba"
    assert train(config) == 0
    return config


def test_only_the_projector_moves_when_all_else_is_frozen(projector_run: Config) -> None:
    moved = moved_weights(projector_run)
    assert moved
    assert all("projector" in name and "multi_modal" not in name for name in moved), moved
    trained = [value for group in saved_state(projector_run)["optimizers"].values() for value in group["state"]]
    assert all("multi_modal" not in str(name) for name in trained)


def test_save_folder_holds_what_users_rely_on(projector_run: Config, raw_sample: Path) -> None:
    folder = Path(str(projector_run.save_folder))
    lines = [json.loads(line) for line in (folder / "ledger" / "rank0.jsonl").read_text().splitlines()]
    assert [line["batch"] for line in lines] == list(range(7))
    assert {line["launch"] for line in lines} == {1}
    names = [entry["filename"] for entry in json.loads((raw_sample / "openspatial.json").read_text())]
    assert sorted(name for line in lines for name in line["ids"]) == sorted(names)
    assert sorted(path.name for path in folder.glob("*.pt")) == [
        "ep0-ba6-rank0.pt",
        "ep1-ba7-rank0.pt",
        "latest-rank0.pt",
    ]
    assert (folder / "latest-rank0.pt").resolve().name == "ep1-ba7-rank0.pt"
    assert "global_train_batch_size: 4" in (folder / "config.yaml").read_text()
    assert list((folder / "tensorboard").rglob("events.*"))


def test_a_checkpoint_is_as_large_as_weights_and_optimizer(projector_run: Config) -> None:
    checkpoint = newest_whole_checkpoint(Path(str(projector_run.save_folder)))
    assert checkpoint is not None
    state = torch.load(checkpoint.path, weights_only=False)["state"]
    flat, _ = flatten_state_dict({"model": state["model"], "optimizers": state["optimizers"]})
    tensors = sum(value.nbytes for value in flat.values() if isinstance(value, torch.Tensor))
    assert tensors < checkpoint.path.stat().st_size < tensors + 60_000


def test_utilisation_is_logged(projector_run: Config) -> None:
    flops = list(logged(projector_run.save_folder, "throughput/device/flops_per_sec").values())
    utilisation = list(logged(projector_run.save_folder, "throughput/device/mfu").values())
    assert len(flops) == len(utilisation) > 0
    assert min(flops) > 0
    assert utilisation == pytest.approx([value / 1e9 for value in flops])


def test_finished_run_says_so_and_changes_nothing(projector_run: Config, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(str(projector_run.save_folder))
    before = {path: path.stat().st_mtime_ns for path in folder.glob("ep*")}
    with caplog.at_level("INFO"):
        assert train(projector_run) == 0
    assert "finished already" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in folder.glob("ep*")} == before


def test_loss_goes_down(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    config = run_config(raw_sample, mds_sample, tmp_path, "max_duration=4ep", "save_interval=4ep")
    assert train(config) == 0
    values = losses(config.save_folder)
    assert len(values) == 28
    assert sum(values[-7:]) / 7 < 0.75 * sum(values[:7]) / 7
    moved = moved_weights(config)
    assert any("language_model" in name for name in moved)
    assert not any("vision_tower" in name or "world_encoder" in name for name in moved)


def test_resumed_run_has_the_losses_of_an_unbroken_one(
    projector_run: Config, raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    overrides = ("model.freeze.language=true", "save_num_checkpoints_to_keep=2")
    config = run_config(raw_sample, mds_sample, tmp_path, *overrides)
    config.save_interval, config.max_duration = "2ba", "4ba"
    # The schedule of the whole pass, so that only the stop differs.
    config.scheduler = {"name": "constant_with_warmup", "t_warmup": "4ba"}
    assert train(config) == 0
    config.max_duration = "1ep"
    assert train(config) == 0
    unbroken = run_config(raw_sample, mds_sample, tmp_path / "unbroken", *overrides)
    unbroken.scheduler = config.scheduler
    assert train(unbroken) == 0
    assert losses(config.save_folder) == losses(unbroken.save_folder)
    assert len(losses(config.save_folder)) == 7
    broken, whole = saved_state(config)["model"], saved_state(unbroken)["model"]
    assert all(torch.equal(value, whole[name]) for name, value in broken.items())


def test_world_off_trains_plain_gemma(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    config = run_config(raw_sample, mds_sample, tmp_path, "model.enable_world=false", "max_duration=2ba")
    assert train(config) == 0
    assert not any("world" in name for name in saved_state(config)["model"])
