"""A base in 4 bits (QLoRA, arXiv:2305.14314): the linear layers of the parts that have adapters.

They are quantised one by one from the weights as the base's files have them, so that the same base gives the same 4
bits, whatever a run or an answer computes in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from theworld.config.schema import LoraConfig
from theworld.errors import UserError, first_line
from theworld.model.check_four_bits import require_bitsandbytes
from theworld.model.check_lora import pattern_of

if TYPE_CHECKING:
    from theworld.model.four_bit_linear import FourBitLinear

QUANTISED = "is_loaded_in_4bit"
"""The model's attribute that peft looks for."""


@torch.no_grad()
def quantise(
    model: nn.Module,
    lora: LoraConfig,
    storage: torch.dtype = torch.uint8,
    precision: torch.dtype = torch.float32,
    device: torch.device | None = None,
    on: torch.device | None = None,
) -> None:
    """Put layers in 4 bits in the place of the linear ones, with the base's weights in them, one after the other.

    Args:
        model: a ``TheWorldForConditionalGeneration`` before :func:`~theworld.model.adapters.add_adapters`.
        lora: whose parts are quantised, all their linear layers.
        storage: of the packed weights: uint8, or for FSDP the type of the weights beside them.
        precision: that a weight is made whole in for the backward pass.
        device: where the layers go; None: where they are.
        on: where they are quantised; None: where they go.

    Raises:
        UserError: bitsandbytes is not there, or cannot do it.
    """
    require_bitsandbytes("model.load_in_4bit")
    try:
        from theworld.model.four_bit_linear import FourBitLinear
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(f"model.load_in_4bit: bitsandbytes cannot be imported ({first_line(error)})") from error
    pattern = re.compile(pattern_of(LoraConfig(parts=lora.parts)))
    for name in [name for name, _ in model.named_modules() if pattern.fullmatch(name)]:
        parent, _, own = name.rpartition(".")
        plain = model.get_submodule(name)
        assert isinstance(plain, nn.Linear)
        if plain.weight.numel() % 64:
            raise UserError(f"model.load_in_4bit: {name} has no whole number of blocks of 64 weights")
        to = device or plain.weight.device
        layer = FourBitLinear(plain, storage, precision, to, on or to)
        setattr(model.get_submodule(parent), own, layer)
    setattr(model, QUANTISED, True)


def four_bit_layers(model: nn.Module) -> Iterator[tuple[str, FourBitLinear]]:
    """The layers in 4 bits, by name; none of a model that has none."""
    if getattr(model, QUANTISED, False):
        from theworld.model.four_bit_linear import FourBitLinear

        yield from ((name, one) for name, one in model.named_modules() if isinstance(one, FourBitLinear))


def packed_weights(model: nn.Module) -> set[nn.Parameter]:
    """The weights in 4 bits, whose type says nothing of their precision."""
    return {layer.weight for _, layer in four_bit_layers(model)}


def bytes_beside(model: nn.Module) -> int:
    """What the layers in 4 bits have beside their packed weights. Each rank has all of it, whatever is sharded."""
    return sum(one.nbytes for _, layer in four_bit_layers(model) for one in layer.beside())


def dequantise(model: nn.Module, dtype: torch.dtype) -> None:
    """Put plain layers back, with weights of this type. What adapters add to a weight is added before it is rounded.

    Raises:
        UserError: a sum is not finite.
    """
    if not getattr(model, QUANTISED, False):
        return
    from peft.tuners.lora import LoraLayer

    adapted = {id(one.get_base_layer()): name for name, one in model.named_modules() if isinstance(one, LoraLayer)}
    for name, layer in list(four_bit_layers(model)):
        weight = layer.whole_weight()
        whole = adapted.get(id(layer), name)
        if whole != name:
            weight += cast(Any, model.get_submodule(whole)).get_delta_weight("default").float()
        plain = plain_layer(layer, weight.to(dtype))
        if not torch.isfinite(plain.weight).all():
            raise UserError(f"{whole}: its adapter cannot be merged: the sum is not finite")
        parent, _, own = whole.rpartition(".")
        setattr(model.get_submodule(parent), own, plain)
    setattr(model, QUANTISED, False)


def plain_layer(layer: FourBitLinear, weight: Tensor) -> nn.Linear:
    """A linear layer with this weight, and the other's bias."""
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight = nn.Parameter(weight, requires_grad=False)
    plain.bias = layer.bias
    return plain
