"""The ways to compute attention agree, and meet the masks and shapes that docs/attention.md tells of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from theworld.config.schema import FreezeConfig, ModelConfig
from theworld.labels import IGNORE
from theworld.model import TheWorldForConditionalGeneration, TheWorldProcessor, load_model

Batch = dict[str, Tensor]
Config = Callable[..., ModelConfig]


@pytest.fixture(scope="module")
def batch(make_batch: Callable[..., Batch], processor: TheWorldProcessor) -> Batch:
    """Three samples with pictures, padded, some longer than the tiny model's sliding window."""
    made = make_batch(processor)
    words = torch.randint(300, 800, (3, 40), generator=torch.Generator().manual_seed(4))
    before = {"input_ids": words, "attention_mask": torch.ones_like(words), "token_type_ids": torch.zeros_like(words)}
    before["labels"] = torch.full_like(words, IGNORE)
    made |= {name: torch.cat([value, made[name]], dim=1) for name, value in before.items()}
    assert int(made["attention_mask"].sum(dim=1).max()) > 64
    assert not made["attention_mask"].all()
    return made


def loaded(tiny_config: Config, attention: str) -> TheWorldForConditionalGeneration:
    freeze = FreezeConfig(vision=False, language=False)
    return load_model(tiny_config(freeze=freeze, attn_implementation=attention)).train()


def step(model: TheWorldForConditionalGeneration, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients."""
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    assert found[1].keys() == expected[1].keys()
    # A bias of keys moves all scores of a query alike: its gradient is nothing but rounding, of the others' size.
    largest = max(float(gradient.abs().max()) for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-6 * largest, msg=name)


def test_eager_and_sdpa_agree_forward_and_backward(tiny_config: Config, batch: Batch) -> None:
    models = {name: loaded(tiny_config, name) for name in ("eager", "sdpa")}
    for name, model in models.items():
        for part in (model.model.language_model, model.model.vision_tower):
            assert part.config._attn_implementation == name
    assert_same(step(models["sdpa"], batch), step(models["eager"], batch))


class Calls(TorchFunctionMode):
    """Notes the shapes of the queries and masks that torch's fused attention is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[tuple[int, ...], tuple[int, ...] | None]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            mask = kwargs.get("attn_mask")
            assert args[0].shape == args[1].shape, "keys are repeated for all heads of queries"
            self.seen.append((tuple(args[0].shape), None if mask is None else tuple(mask.shape)))
        return func(*args, **kwargs)


def test_the_language_model_has_dense_masks_and_the_vision_tower_none(tiny_config: Config, batch: Batch) -> None:
    model = loaded(tiny_config, "sdpa")
    rows, length = batch["input_ids"].shape
    with torch.no_grad(), Calls() as calls:
        model(**batch)
    patches = (112 // 14) ** 2
    assert calls.seen.count(((rows, 2, patches, 16), None)) == 2
    assert calls.seen.count(((rows, 4, length, 16), (rows, 1, length, length))) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: flex_attention fails on a CPU")
def test_flex_and_sdpa_agree_on_a_gpu(tiny_config: Config, batch: Batch) -> None:
    on_device = {name: value.cuda() for name, value in batch.items()}
    results = []
    for name in ("flex_attention", "sdpa"):
        model = loaded(tiny_config, name)
        torch.nn.Module.cuda(model)
        results.append(step(model, on_device))
    assert_same(*results)
