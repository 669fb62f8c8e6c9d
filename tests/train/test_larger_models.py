"""Gemma 3 12B and 27B by the YAML alone: shapes, precisions, FSDP's units and the estimate, on the meta device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import SMOKE_YAML
from tests.helpers.extras import FOUR_BITS, needs_extra
from tests.train.real_shapes import LARGER, write_real_shapes
from theworld.config.load import load_config
from theworld.config.schema import Config
from theworld.model.four_bits import bytes_beside, four_bit_layers
from theworld.train.fit_memory import fit_memory
from theworld.train.memory import GIB, MemoryOfRun

SPATIAL_YAML = str(Path(SMOKE_YAML).with_name("spatial.yaml"))
GPU_80 = 80 * 10**9
PARAMETERS = {"12B": 12.187, "27B": 27.432}
"""Billions of the stock models, as the names of the releases have them."""


def run_of(bases: list[str], *overrides: str) -> tuple[Config, MemoryOfRun]:
    config = load_config([SPATIAL_YAML, *bases, "device_train_microbatch_size=1", *overrides])
    return config, MemoryOfRun(config)


@pytest.mark.parametrize("size", LARGER)
def test_a_larger_gemma_by_the_yaml_alone(size: str, tmp_path: Path) -> None:
    bases = write_real_shapes(tmp_path, size)
    config, memory = run_of(bases, "model.freeze.vision=false")
    model = memory.model
    inner = model.model
    parts = (inner.language_model, inner.vision_tower, inner.multi_modal_projector)
    stock = sum(one.numel() for part in parts for one in part.parameters())  # the head is the embedding
    assert stock / 1e9 == pytest.approx(PARAMETERS[size], abs=0.002)
    width, layers = LARGER[size]["hidden_size"], LARGER[size]["num_hidden_layers"]
    assert inner.world_projector is not None
    assert inner.world_projector.start.shape == (width,)

    trains = {name: one.dtype for name, one in model.named_parameters() if one.requires_grad}
    assert set(trains.values()) == {torch.float32}
    assert {one.dtype for one in inner.language_model.parameters()} == {torch.bfloat16}
    units = [module for module in model.modules() if model.fsdp_wrap_fn(module)]
    assert len(units) == layers + 27 + 4, "layers of both, tower, two projectors, VAE"
    assert all(len({one.dtype for one in unit.parameters()}) == 1 for unit in units)
    inside = {one for unit in units for one in unit.parameters()}
    assert {one.dtype for one in model.parameters() if one not in inside} == {torch.bfloat16}

    whole = memory.estimate(config, 8, 1000)
    sharded = load_config([SPATIAL_YAML, *bases, "parallelism_config={fsdp: {}}"])
    assert whole.parameters / GIB == pytest.approx(2 * stock / GIB, rel=0.1)
    assert memory.estimate(sharded, 8, 1000).parameters * 8 == pytest.approx(whole.parameters, rel=1e-6)


@needs_extra(*FOUR_BITS)
@pytest.mark.parametrize("size", LARGER)
def test_adapters_on_a_base_in_4_bits(size: str, tmp_path: Path) -> None:
    """Half a byte a weight, a byte for each 64 of them and four for 256 of those; the rest is as without."""
    bases = write_real_shapes(tmp_path, size)
    lora = ("model.lora={rank: 16}", "model.freeze.language=true")
    (config, whole), (_, packed) = run_of(bases, *lora), run_of(bases, *lora, "model.load_in_4bit=true")
    layers = [one for _, one in four_bit_layers(packed.model)]
    weights = sum(one.in_features * one.out_features for one in layers)
    assert len(layers) == 7 * LARGER[size]["num_hidden_layers"]
    ours, theirs = packed.estimate(config, 8, 1000), whole.estimate(config, 8, 1000)
    saved = theirs.parameters - ours.parameters
    assert saved / weights == pytest.approx(2 - 0.5 - (1 + 4 / 256) / 64, rel=1e-4)
    assert ours.optimizer == theirs.optimizer
    assert ours.passing - theirs.passing == 2 * max(one.in_features * one.out_features for one in layers)
    sharded = load_config([SPATIAL_YAML, *bases, *lora, "model.load_in_4bit=true", "parallelism_config={fsdp: {}}"])
    beside = bytes_beside(packed.model)
    assert packed.estimate(sharded, 8, 1000).parameters - beside == pytest.approx((ours.parameters - beside) / 8, abs=8)
    largest = max(
        sum(one.in_features * one.out_features for one in layer.modules() if isinstance(one, type(layers[0])))
        for layer in packed.model.model.language_model.layers
    )
    gathered = [run.estimate(sharded, 8, 1000).gathered for run in (whole, packed)]
    assert gathered[0] - gathered[1] == pytest.approx(2 * 1.5 * largest, rel=0.01), "two layers, as they are packed"
    fit_memory(config, packed, 1, GPU_80)


def test_what_fits_an_80_gb_card(tmp_path: Path) -> None:
    """The 27B's projector stage: with eight GPUs sharded; adapters on all its layers as well."""
    bases = write_real_shapes(tmp_path, "27B")
    lora = ("model.lora={rank: 16}", "model.freeze.language=true")
    for more in ((), lora):
        config, memory = run_of(bases, "parallelism_config={fsdp: {}}", *more)
        fit_memory(config, memory, 8, GPU_80)
        assert memory.estimate(config, 8, 1000).total < GPU_80
    adapters = sum(one.numel() for name, one in memory.model.named_parameters() if ".lora_" in name)
    assert adapters == 16 * 62 * sum(
        (5376 + 4096, 5376 + 2048, 5376 + 2048, 4096 + 5376, 5376 + 21504, 5376 + 21504, 21504 + 5376)
    )
