"""The trainer with two ranks through the real launcher: DDP equals one process, FSDP shards, saves and resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.launcher import composer, run
from tests.helpers.tensorboard import losses
from theworld.checkpoint.weights import read_saved_weights
from theworld.config.schema import Config
from theworld.errors import UserError
from theworld.model import load_model
from theworld.train.parallelism import prepare_parallelism


@pytest.fixture
def launch(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> Callable[..., list[float]]:
    """Train with so many ranks; the losses of the batches."""

    def train(ranks: int, folder: str, *overrides: str) -> list[float]:
        settings = [
            f"train_loader.dataset.remote={mds_sample}",
            f"train_loader.dataset.local={tmp_path / 'cache'}",
            f"save_folder={tmp_path / folder}",
            "train_loader.num_workers=0",
            "max_duration=3ba",
            "device_train_microbatch_size=2",
        ]
        log = tmp_path / f"{folder}.log"
        assert run(composer(ranks, "yamls/smoke.yaml", *settings, *overrides), log) == 0, log.read_text()
        return losses(tmp_path / folder)

    return train


BUCKETS = """
from composer.core import Callback


class Buckets(Callback):
    def fit_start(self, state, logger):
        assert state.model.gradient_as_bucket_view, "gradients lie beside DDP's buckets"
"""


@pytest.mark.slow
@pytest.mark.dist
def test_two_ranks_train_as_one_does(launch: Callable[..., list[float]], tmp_path: Path) -> None:
    (tmp_path / "ddp_buckets.py").write_text(BUCKETS)
    check = (f"code_paths=[{tmp_path / 'ddp_buckets.py'}]", "callbacks={'ddp_buckets:Buckets': {}}")
    one, two = launch(1, "one"), launch(2, "two", *check)
    assert len(one) == 3
    assert two == pytest.approx(one, rel=1e-4)
    weights = [torch.load(tmp_path / name / "ep0-ba3-rank0.pt", weights_only=False)["state"] for name in ("one", "two")]
    for name, weight in weights[0]["model"].items():
        torch.testing.assert_close(weights[1]["model"][name], weight, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
@pytest.mark.dist
def test_sharded_checkpoints_hold_what_trains_and_resume(launch: Callable[..., list[float]], tmp_path: Path) -> None:
    settings = ("parallelism_config={fsdp: {activation_checkpointing: true}}", "model.freeze.language=true")
    frozen = (*settings, "model.frozen_dtype=bf16")
    begun = launch(2, "sharded", *frozen, "max_duration=2ba", "scheduler.t_warmup=0ba")
    saved = read_saved_weights(str(tmp_path / "sharded" / "ep0-ba2"))
    assert saved.trained == saved.shapes.keys()
    assert all(".world_projector." in name for name in saved.shapes)
    others = beside_weights(tmp_path / "sharded" / "ep0-ba2")
    assert len(others) < 100
    assert [name for name in others if name.startswith("rng")] == ["rng"]  # however many ranks there are
    assert max(others.values()) < 100_000
    resumed = launch(2, "sharded", *frozen, "scheduler.t_warmup=0ba")
    assert resumed[:2] == begun
    assert len(resumed) == 3

    load = (f"load_path={tmp_path / 'sharded' / 'ep0-ba2'}", "load_weights_only=true", "model.freeze.vision=false")
    stage = launch(2, "stage", settings[0], "model.freeze.language=true", *load, "max_duration=1ba", "optimizer.lr=0.0")
    assert len(stage) == 1
    second = read_saved_weights(str(tmp_path / "stage" / "ep0-ba1"))
    assert {*saved.shapes} < {*second.shapes}
    weights = [weights_in(tmp_path / folder) for folder in ("sharded/ep0-ba2", "stage/ep0-ba1")]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def beside_weights(folder: Path) -> dict[str, int]:
    """Entries of a sharded checkpoint that are neither weights nor optimizer, with their bytes."""
    from torch.distributed.checkpoint import FileSystemReader  # pyright: ignore[reportPrivateImportUsage]

    stored = FileSystemReader(folder).read_metadata().storage_data or {}
    sizes = {index.fqn: info.length for index, info in stored.items()}
    return {name: size for name, size in sizes.items() if not name.startswith(("state.model.", "state.optimizers."))}


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a sharded checkpoint."""
    from torch.distributed.checkpoint import FileSystemReader  # pyright: ignore[reportPrivateImportUsage]
    from torch.distributed.checkpoint.state_dict_loader import load

    shapes = read_saved_weights(str(folder)).shapes
    state: dict[str, Any] = {"state": {"model": {name: torch.zeros(shape) for name, shape in shapes.items()}}}
    load(state, storage_reader=FileSystemReader(folder), no_dist=True)
    return state["state"]["model"]


@pytest.mark.slow
@pytest.mark.dist
def test_full_checkpoints_under_fsdp_hold_what_trains(launch: Callable[..., list[float]], tmp_path: Path) -> None:
    fsdp = ("parallelism_config={fsdp: {state_dict_type: full}}", "model.freeze.language=true")
    begun = launch(2, "full", *fsdp, "max_duration=2ba", "scheduler.t_warmup=0ba")
    state = torch.load(tmp_path / "full" / "ep0-ba2-rank0.pt", weights_only=False)["state"]
    assert all(".world_projector." in name for name in state["model"])
    resumed = launch(2, "full", *fsdp, "scheduler.t_warmup=0ba")
    assert resumed[:2] == begun
    assert len(resumed) == 3


@pytest.mark.parametrize(
    ("fsdp", "micro", "says"),
    [
        ({"shardng_strategy": "FULL_SHARD"}, 2, r"fsdp\.shardng_strategy: not a key of FSDP 2"),
        ({"state_dict_typ": "full"}, 2, r"did you mean state_dict_type\?"),
        ([1], 2, "expected keys and values"),
        ({}, "auto", "auto does not work with FSDP 2"),
        ({"activation_checkpointing": True}, 2, "set one of them to false"),
    ],
)
def test_what_composer_would_ignore_is_one_line(fsdp: Any, micro: Any, says: str) -> None:
    config = Config(parallelism_config={"fsdp": fsdp}, device_train_microbatch_size=micro)
    config.model.activation_checkpointing = True
    with pytest.raises(UserError, match=says):
        prepare_parallelism(config)


def test_units_of_fsdp_are_of_one_precision(tiny_config: Callable[..., Any]) -> None:
    model = load_model(tiny_config(), frozen_dtype=torch.bfloat16)
    units = [module for module in model.modules() if model.fsdp_wrap_fn(module)]
    covered = {parameter for unit in units for parameter in unit.parameters()}
    root = {parameter.dtype for parameter in model.parameters() if parameter not in covered}
    assert len(units) == 2 + 2 + 4, "two layers each, tower, projectors, VAE"
    assert root == {torch.bfloat16}
    assert all(len({parameter.dtype for parameter in unit.parameters()}) == 1 for unit in units)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: auto microbatches and amp_bf16")
def test_auto_microbatches_in_bf16(launch: Callable[..., list[float]]) -> None:
    settings = ("device=gpu", "precision=amp_bf16", "device_train_microbatch_size=auto")
    assert all(torch.isfinite(torch.tensor(launch(1, "gpu", *settings))))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: FSDP 1 and bf16 under FSDP 2")
@pytest.mark.parametrize("version", ["1", "2"])
def test_fsdp_in_bf16_with_frozen_parts(
    launch: Callable[..., list[float]], version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSDP_VERSION", version)
    settings = ("device=gpu", "precision=amp_bf16", "parallelism_config={fsdp: {}}", "model.freeze.language=true")
    assert json.dumps(launch(1, f"fsdp{version}", *settings)).count("NaN") == 0
