"""The trainer with two ranks through the real launcher: DDP equals one process, FSDP shards, saves and resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.extras import FOUR_BITS, needs_extra
from tests.helpers.launcher import composer, run
from tests.helpers.tensorboard import logged, losses
from theworld.checkpoint.weights import read_saved_weights
from theworld.config.schema import Config, LoraConfig
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


@pytest.mark.slow
@pytest.mark.dist
def test_rates_by_part_on_two_ranks_sharded_and_not(launch: Callable[..., list[float]], tmp_path: Path) -> None:
    groups = "optimizer.groups={projector: {lr: 4.0e-3}, language: {lr: 1.0e-3, weight_decay: 1.0e-3}}"
    settings = (groups, "optimizer.decay_norms_and_biases=false", "scheduler.t_warmup=0ba", "scheduler.t_max=9ba")
    fsdp = "parallelism_config={fsdp: {}}"
    whole = launch(2, "ddp", *settings)
    launch(2, "fsdp", *settings, fsdp, "max_duration=2ba")
    assert launch(2, "fsdp", *settings, fsdp) == pytest.approx(whole, rel=1e-4)
    for part in ("projector", "language"):
        rates = logged(tmp_path / "fsdp", f"lr/{part}")
        assert len(set(rates.values())) == 3
        assert rates == logged(tmp_path / "ddp", f"lr/{part}")
    state = torch.load(tmp_path / "ddp" / "ep0-ba3-rank0.pt", weights_only=False)["state"]["model"]
    for name, weight in weights_in(tmp_path / "fsdp" / "ep0-ba3").items():
        torch.testing.assert_close(weight, state[name], rtol=1e-2, atol=1e-3)


@pytest.mark.slow
@pytest.mark.dist
def test_adapters_on_two_ranks_sharded_and_not(launch: Callable[..., list[float]], tmp_path: Path) -> None:
    settings = ("model.freeze.language=true", "model.lora={rank: 4, parts: [language, vision]}", "optimizer.lr=1.0e-2")
    settings = (*settings, "scheduler.t_warmup=0ba", "scheduler.t_max=9ba", "model.frozen_dtype=bf16")
    fsdp = "parallelism_config={fsdp: {}}"
    one, whole = launch(1, "lora-one", *settings), launch(2, "lora-ddp", *settings)
    assert whole == pytest.approx(one, rel=2e-3)
    begun = launch(2, "lora-fsdp", *settings, fsdp, "max_duration=2ba")
    sharded = launch(2, "lora-fsdp", *settings, fsdp)
    assert sharded[:2] == begun
    assert sharded == pytest.approx(whole, rel=2e-3)
    state = torch.load(tmp_path / "lora-ddp" / "ep0-ba3-rank0.pt", weights_only=False)["state"]["model"]
    weights = weights_in(tmp_path / "lora-fsdp" / "ep0-ba3")
    assert weights.keys() == state.keys()
    assert all(".lora_" in name or ".world_projector." in name for name in weights)
    assert all(weight.any() for weight in weights.values())


@pytest.mark.dist
@needs_extra(*FOUR_BITS)
def test_adapters_on_a_base_in_4_bits_on_two_ranks(launch: Callable[..., list[float]], tmp_path: Path) -> None:
    """With FSDP the packed weights are stored as the frozen ones beside them, and gathered as what they are."""
    settings = ("model.freeze.language=true", "model.lora={rank: 4, parts: [language, vision]}", "optimizer.lr=1.0e-2")
    settings = (*settings, "scheduler.t_warmup=0ba", "scheduler.t_max=9ba", "model.load_in_4bit=true")
    fsdp = "parallelism_config={fsdp: {}}"
    whole = launch(2, "bits-ddp", *settings)
    begun = launch(2, "bits-fsdp", *settings, fsdp, "max_duration=2ba")
    sharded = launch(2, "bits-fsdp", *settings, fsdp)
    assert sharded[:2] == begun
    assert sharded == pytest.approx(whole, rel=1e-4)
    half = ("parallelism_config={fsdp: {mixed_precision: FULL}}", "model.frozen_dtype=bf16", "max_duration=2ba")
    half = (*half, "model.activation_checkpointing=true")
    assert launch(2, "bits-half", *settings, *half) == pytest.approx(whole[:2], rel=2e-3)
    state = torch.load(tmp_path / "bits-ddp" / "ep0-ba3-rank0.pt", weights_only=False)["state"]["model"]
    weights = weights_in(tmp_path / "bits-fsdp" / "ep0-ba3")
    assert weights.keys() == state.keys()
    assert all(".lora_" in name or ".world_projector." in name for name in weights)
    assert all(weight.any() for weight in weights.values())


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


def test_groups_need_the_weights_as_they_are_and_adapters_fsdp_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSDP_VERSION", "1")
    adapted = Config(parallelism_config={"fsdp": {}})
    adapted.model.lora = LoraConfig()
    with pytest.raises(UserError, match=r"model\.lora: with FSDP 2 only"):
        prepare_parallelism(adapted)
    config = Config(parallelism_config={"fsdp": {"use_orig_params": False}})
    config.optimizer = {"groups": {"projector": {"lr": 1.0e-3}}}
    with pytest.raises(UserError, match="of which optimizer"):
        prepare_parallelism(config)


@pytest.mark.parametrize(
    ("precision", "frozen", "parallel", "says"),
    [
        ("amp_fp16", None, {"fsdp": {}}, "FSDP needs precision amp_bf16 or fp32"),
        ("amp_bf16", "fp32", {"fsdp": {}}, "they are amp_bf16 and fp32"),
        ("fp32", "bf16", {"fsdp": {"mixed_precision": "PURE"}}, "they are fp32 and bf16"),
        ("fp32", None, {"fsdp": {}, "tp": {}}, r"parallelism_config\.tp: not with model\.load_in_4bit"),
    ],
)
def test_fsdp_is_not_to_round_packed_weights(precision: str, frozen: str | None, parallel: Any, says: str) -> None:
    config = Config(parallelism_config=parallel, precision=precision, device_train_microbatch_size=2)
    config.model.lora, config.model.load_in_4bit, config.model.frozen_dtype = LoraConfig(), True, frozen
    with pytest.raises(UserError, match=says):
        prepare_parallelism(config)
    config.precision, config.model.frozen_dtype = "amp_bf16", None
    config.parallelism_config = {"fsdp": {}}
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
