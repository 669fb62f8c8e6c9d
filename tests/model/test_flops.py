"""Model FLOPs against torch's own counter.

The two differ by the products that make the rotary angles, some 2,000 operations. Each term of the count is larger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from theworld.config.schema import FreezeConfig, ModelConfig, ProjectorConfig
from theworld.model import TheWorldProcessor, load_model
from theworld.model.flops import Work, count_flops, trained_parts
from theworld.train.composer_model import ComposerTheWorld

STAGES = {
    "projector": FreezeConfig(),
    "vision": FreezeConfig(vision=False),
    "language": FreezeConfig(vision=False, language=False),
    "language alone": FreezeConfig(language=False),
    "nothing before the language": FreezeConfig(language=False, projector=True),
    "vision alone": FreezeConfig(vision=False, projector=True),
    "vae": FreezeConfig(vae=False),
    "vae alone": FreezeConfig(vae=False, projector=True),
    "everything": FreezeConfig(vision=False, language=False, vae=False),
}
SAME = 1e-4
"""Relative."""
Make = Callable[..., Any]


def step(model: Any, batch: dict[str, torch.Tensor]) -> float:
    """What torch counts in a forward and backward pass. It does not know a CPU's fused attention."""
    model.set_attn_implementation("eager")
    model.train()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(**batch).loss.backward()
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def full_batch(make_batch: Make, processor: TheWorldProcessor) -> dict[str, torch.Tensor]:
    """Without padding: torch counts it as well."""
    return sample(make_batch(processor), 2)


def sample(batch: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    """One sample of a batch without its padding."""
    length = int(batch["attention_mask"][row].sum())
    alone = {name: value[row : row + 1] for name, value in batch.items()}
    return {name: value[:, :length] if value.ndim == 2 else value for name, value in alone.items()}


@pytest.mark.parametrize("stage", STAGES)
def test_torch_counts_the_same(
    tiny_config: Callable[..., ModelConfig], full_batch: dict[str, torch.Tensor], stage: str
) -> None:
    model = load_model(tiny_config(freeze=STAGES[stage]))
    counted = count_flops(model.config, trained_parts(model), Work.of(full_batch))
    assert counted.recomputed == 0
    assert counted.total == pytest.approx(step(model, full_batch), rel=SAME)
    assert min(counted.language, counted.vision, counted.vae, counted.projector) > 0


@pytest.mark.parametrize("mode", ["spatial", "channel", "pool", "resampler"])
@pytest.mark.parametrize("stage", ["projector", "vae", "vae alone"])
def test_every_projector_is_counted(tiny_config: Callable[..., ModelConfig], mode: str, stage: str) -> None:
    model = load_model(tiny_config(freeze=STAGES[stage], projector=ProjectorConfig(mode=mode)))
    work = Work(lengths=(300,), answers=5, pictures=1, worlds=2, encoded=2)
    projector = model.model.world_projector
    assert projector is not None
    latents = torch.randn(2, 16, 8, 8, requires_grad="vae" in stage)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        projector(latents).sum().backward()
    counted = count_flops(model.config, trained_parts(model), work).projector
    assert counted == pytest.approx(counter.get_total_flops(), rel=SAME)


def test_recomputation_is_counted_apart(
    tiny_config: Callable[..., ModelConfig], full_batch: dict[str, torch.Tensor], processor: TheWorldProcessor
) -> None:
    for freeze in (STAGES["projector"], STAGES["language"]):
        plain = ComposerTheWorld(load_model(tiny_config(freeze=freeze)), processor).count_flops(full_batch)
        model = load_model(tiny_config(freeze=freeze, activation_checkpointing=True))
        trained = ComposerTheWorld(model, processor)
        counted = trained.count_flops(full_batch)
        assert counted.total == plain.total == trained.flops_per_batch(full_batch), "what utilisation is made of"
        assert counted.total_with_recomputed == pytest.approx(step(model, full_batch), rel=SAME)
        assert counted.recomputed > 0.05 * counted.total


def test_a_save_does_not_ask_for_the_tokenizer(
    tiny_config: Callable[..., ModelConfig], processor: TheWorldProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("ten seconds of CPU time a save with the real vocabulary")

    model = ComposerTheWorld(load_model(tiny_config()), processor)
    monkeypatch.setattr(type(processor.tokenizer), "save_pretrained", refuse)
    assert model.get_metadata() == {}


def test_padding_is_not_counted(
    tiny_config: Callable[..., ModelConfig], make_batch: Make, processor: TheWorldProcessor
) -> None:
    model = ComposerTheWorld(load_model(tiny_config()), processor)
    batch = make_batch(processor)
    assert int(batch["attention_mask"].sum()) < batch["attention_mask"].numel()
    alone = [model.flops_per_batch(sample(batch, row)) for row in range(3)]
    assert model.flops_per_batch(batch) == pytest.approx(sum(alone), rel=1e-9)


def test_latents_computed_before_cost_no_vae(
    tiny_config: Callable[..., ModelConfig], full_batch: dict[str, torch.Tensor]
) -> None:
    model = load_model(tiny_config())
    latents = model.model.get_world_latents(full_batch["world_pixel_values"])
    given = {name: value for name, value in full_batch.items() if name != "world_pixel_values"}
    with_latents = count_flops(model.config, trained_parts(model), Work.of({**given, "world_latents": latents}))
    with_pixels = count_flops(model.config, trained_parts(model), Work.of(full_batch))
    assert with_latents.vae == 0
    assert with_latents.projector == with_pixels.projector
    assert with_latents.total == pytest.approx(with_pixels.total - with_pixels.vae)
