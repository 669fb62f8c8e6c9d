"""The released models' shapes without memory behind them: wiring, operations of a step, what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from composer.core import State
from composer.devices import DeviceCPU
from composer.optim import DecoupledAdamW
from torch.utils.flop_counter import FlopCounterMode

from theworld.checkpoint.fence import Fence
from theworld.checkpoint.saver import WholeCheckpointSaver
from theworld.checkpoint.weights import RECORD, Weights
from theworld.config.schema import FreezeConfig, ModelConfig
from theworld.model import TheWorldForConditionalGeneration, TheWorldProcessor
from theworld.model.build import apply_freezing, load_shapes
from theworld.model.flops import Work, count_flops, trained_parts
from theworld.train.composer_model import ComposerTheWorld

pytestmark = pytest.mark.realsize

TOKENS = 1056
STAGES = {
    "projector": FreezeConfig(),
    "vision": FreezeConfig(vision=False),
    "language": FreezeConfig(vision=False, language=False),
}


@pytest.fixture(scope="module")
def shapes(real_config: ModelConfig) -> TheWorldForConditionalGeneration:
    return load_shapes(real_config)


def in_stage(shapes: TheWorldForConditionalGeneration, stage: str) -> TheWorldForConditionalGeneration:
    apply_freezing(shapes, STAGES[stage])
    return shapes


def one_sample(answers: int = 0) -> Work:
    return Work(lengths=(TOKENS,), answers=answers, pictures=1, worlds=1, encoded=1)


def torch_counts(module: Any, outputs: Any, needs_backward: bool) -> float:
    """Forward and backward on tensors without memory, attention as plain products."""
    with FlopCounterMode(display=False) as counter:
        made = outputs(module)
        if needs_backward:
            made.sum().backward()
    return counter.get_total_flops()


def language_output(model: Any) -> torch.Tensor:
    """The decoder layers one after the other: their model's forward asks for an autocast that this device lacks."""
    text = model.config.text_config
    states = torch.empty(1, TOKENS, text.hidden_size, device="meta", requires_grad=True)
    mask = torch.empty(1, 1, TOKENS, TOKENS, device="meta")
    rotation = (torch.empty(1, TOKENS, text.head_dim, device="meta"),) * 2
    for layer in model.model.language_model.layers:
        states = layer(states, rotation, rotation, attention_mask=mask, use_cache=False)[0]
    return states


def vision_output(model: Any) -> torch.Tensor:
    return model.model.get_image_features(torch.empty(1, 3, 896, 896, device="meta"))


@pytest.mark.parametrize("stage", STAGES)
def test_torch_counts_the_same_operations_within_three_percent(
    shapes: TheWorldForConditionalGeneration, stage: str
) -> None:
    model = in_stage(shapes, stage)
    model.set_attn_implementation("eager")
    counted = count_flops(model.config, trained_parts(model), one_sample())
    assert counted.language == pytest.approx(torch_counts(model, language_output, True), rel=0.03)
    trains = stage != "projector"
    assert counted.vision == pytest.approx(torch_counts(model, vision_output, trains), rel=0.03)


def test_operations_of_a_sample_in_the_projector_stage(shapes: TheWorldForConditionalGeneration) -> None:
    model = in_stage(shapes, "projector")
    counted = count_flops(model.config, trained_parts(model), one_sample(), checkpointing=True)
    assert (counted.language + counted.recomputed) / 1e12 == pytest.approx(21.3, rel=0.03)
    assert counted.vision / 1e12 == pytest.approx(5.5, rel=0.03)
    assert counted.vae / 1e12 == pytest.approx(1.75, rel=0.03)


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_written_beside_the_weights_stays_small(
    shapes: TheWorldForConditionalGeneration, real_processor: TheWorldProcessor, stage: str
) -> None:
    model = ComposerTheWorld(in_stage(shapes, stage), real_processor)
    checkpoint: dict[str, Any] = {"state": {"model": model.state_dict()}}
    Weights(model).drop_frozen(checkpoint)
    assert len(checkpoint["state"][RECORD]) < 100_000


def test_a_projectors_checkpoint_is_as_large_as_weights_and_optimizer(
    shapes: TheWorldForConditionalGeneration, real_processor: TheWorldProcessor, tmp_path: Path
) -> None:
    model = ComposerTheWorld(in_stage(shapes, "projector"), real_processor)
    projector = model.model.model.world_projector
    assert projector is not None
    projector.to_empty(device="cpu")
    projector.reset_parameters(rms=1.0)
    optimizer = DecoupledAdamW(projector.parameters(), lr=1e-4)
    for parameter in projector.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = State(model=model, rank_zero_seed=0, run_name="size", device=DeviceCPU(), optimizers=optimizer)
    saver = WholeCheckpointSaver(
        tmp_path, "1ep", -1, Fence(1, None), before_save=lambda: None, select=Weights(model).drop_frozen
    )
    saved = saver.save(state)
    assert saved is not None
    tensors = 3 * sum(parameter.nbytes for parameter in projector.parameters())
    print(f"{saved.stat().st_size:,} bytes, {tensors:,} of them weights and optimizer state")
    assert tensors < saved.stat().st_size < tensors + 200_000
