"""Adapters (LoRA, arXiv:2106.09685) on linear layers of the model, by peft.

peft puts its layers into the model as it is, without the class that it usually wraps a model in: every other name stays
what it is, and the projector trains as it does without adapters.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from theworld.config.schema import LoraConfig
from theworld.errors import UserError, first_line
from theworld.model.check_lora import pattern_of
from theworld.model.four_bits import dequantise

A, B = ".lora_A.", ".lora_B."
"""In the names of an adapter's two weights: the layer's output gets B(A(input)) x alpha / rank."""
HALF = "is_half_of_an_adapter"


def add_adapters(model: nn.Module, lora: LoraConfig, seed: int) -> None:
    """Put adapters on the layers that the section ``model.lora`` names. At first they change nothing: B is zero.

    peft freezes everything else; the caller says what trains.

    Args:
        model: a ``TheWorldForConditionalGeneration``.
        lora: checked by :func:`~theworld.model.check_lora.check_lora`.
        seed: of A's weights; every rank draws the same, whatever its device.

    Raises:
        UserError: peft is not there, or refuses.
    """
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise UserError(f"model.lora: peft cannot be imported ({first_line(error)})") from error
    settings = PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType] - any number; alpha / rank is what counts
        lora_dropout=lora.dropout,
        target_modules=pattern_of(lora),
    )
    try:
        with torch.random.fork_rng(devices=[]):
            inject_adapter_in_model(settings, model)
    except ValueError as error:
        raise UserError(f"model.lora: peft refuses these settings: {first_line(error)}") from error
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and is_adapter(f"{name}."):
            setattr(module, HALF, True)
    draw_adapters(model, torch.Generator().manual_seed(seed))


@torch.no_grad()
def draw_adapters(model: nn.Module, generator: torch.Generator) -> None:
    """A as torch draws a linear layer's weights, B zero."""
    for name, weight in adapter_weights(model).items():
        if A in name:
            bound = 1 / math.sqrt(weight.shape[1])
            # On the CPU: the generator lives there.
            weight.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=generator))
        else:
            weight.zero_()


def is_adapter(name: str) -> bool:
    """Whether a weight is an adapter's, by its name."""
    return A in name or B in name


def adapter_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The adapters' weights by name."""
    return {name: weight for name, weight in model.named_parameters() if is_adapter(name)}


def is_adapter_half(module: nn.Module) -> bool:
    """Whether a module is the A or the B of an adapter. FSDP shards each by itself: what it shards together must be of
    one precision, and the layer's own weight is frozen, mostly in bfloat16."""
    return getattr(module, HALF, False)


def merge_adapters(model: nn.Module) -> None:
    """Add each adapter to its layer's own weight, and put the plain layer back; a base in 4 bits is whole again, in the
    precision of its embedding.

    Raises:
        UserError: a sum is not finite.
    """
    from peft.tuners.lora import LoraLayer

    dequantise(model, next(model.parameters()).dtype)
    for name, layer in [item for item in model.named_modules() if isinstance(item[1], LoraLayer)]:
        merged: Any = layer
        try:
            merged.merge(safe_merge=True)
        except ValueError as error:
            raise UserError(f"{name}: its adapter cannot be merged: {first_line(error)}") from error
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, merged.get_base_layer())
