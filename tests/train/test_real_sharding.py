"""FSDP at the released models' shapes on eight ranks that are not there: units, dtypes, the tie, this rank's bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from composer.core.precision import Precision
from composer.distributed.fsdp2 import prepare_fully_shard
from composer.distributed.fsdp2_utils import generate_composer_model_policy
from composer.utils.parallelism import FSDP2Config
from torch import distributed
from torch.distributed.fsdp import FSDPModule
from torch.testing._internal.distributed.fake_pg import FakeStore

from tests.conftest import SMOKE_YAML
from tests.helpers.extras import FOUR_BITS, marks_of_extra
from tests.train.real_shapes import write_real_shapes
from theworld.config.load import load_config
from theworld.model.build import load_processor
from theworld.train.composer_model import ComposerTheWorld
from theworld.train.memory import MemoryOfRun

RANKS = 8
STAGES = {"projector": [], "vision": ["model.freeze.vision=false"]}
STAGES["language"] = [*STAGES["vision"], "model.freeze.language=false"]
BITS = ["model.lora={rank: 16}", "model.load_in_4bit=true"]


@pytest.fixture
def eight_ranks() -> Iterator[None]:
    if distributed.is_initialized():  # a group of one, of a run in this process; the next run makes its own again
        distributed.destroy_process_group()
    distributed.init_process_group("fake", rank=0, world_size=RANKS, store=FakeStore())
    yield
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_real_shapes(tmp_path_factory.mktemp("real"))


@pytest.mark.parametrize("stage", [*STAGES, pytest.param("in 4 bits", marks=marks_of_extra(*FOUR_BITS))])
def test_units_and_bytes_at_real_size(bases: list[str], stage: str, eight_ranks: None) -> None:
    spatial = str(Path(SMOKE_YAML).with_name("spatial.yaml"))
    config = load_config([spatial, *bases, *STAGES.get(stage, BITS), "parallelism_config={fsdp: {}}"])
    memory = MemoryOfRun(config)
    expected = memory.estimate(config, RANKS, 1000)
    model = ComposerTheWorld(memory.model, load_processor(config.model))
    prepare_fully_shard(model, FSDP2Config(), Precision("amp_bf16"), generate_composer_model_policy(model))

    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    layers = 34 + 27
    towers_projectors_vae = 4
    halves_of_adapters = 2 * 7 * 34 if stage == "in 4 bits" else 0
    assert len(units) == layers + towers_projectors_vae + 1 + halves_of_adapters
    for unit in units:
        group = unit._get_fsdp_state()._fsdp_param_group
        dtypes = {parameter.sharded_param.dtype for parameter in group.fsdp_params} if group else set()
        assert len(dtypes) <= 1, (unit, dtypes)
    assert memory.model.lm_head.weight is memory.model.get_input_embeddings().weight
    shards: list[Any] = list(model.parameters())
    own = sum(shard.to_local().nbytes for shard in shards)
    assert own + memory.beside == pytest.approx(expected.parameters, rel=0.001)
    trained = sum(shard.to_local().nbytes for shard in shards if shard.requires_grad)
    assert trained == pytest.approx(expected.gradients, rel=0.001)
