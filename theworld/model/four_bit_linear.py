"""A linear layer whose weight is kept in 4 bits (NF4 with double quantisation, arXiv:2305.14314), by bitsandbytes.

Importing this module needs bitsandbytes; :mod:`theworld.model.four_bits` does so where a model has such layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

# An extra, without types: the linters run with it and without it.
bitsandbytes: Any = import_module("bitsandbytes")
dequantize_4bit, quantize_4bit = bitsandbytes.functional.dequantize_4bit, bitsandbytes.functional.quantize_4bit
QuantState, Params4bit = bitsandbytes.functional.QuantState, bitsandbytes.nn.Params4bit
Linear4bit: Any = bitsandbytes.nn.Linear4bit

BLOCK = 64
"""Weights that share one largest value."""
BLOCKS_OF_BLOCKS = 256
"""Such values that share the one that they are quantised by, in turn."""
SETTINGS: dict[str, Any] = {"quant_type": "nf4", "compress_statistics": True}


class FourBitLinear(Linear4bit):
    """bitsandbytes' layer, except that it computes as a plain one does: in autocast's precision where there is one, or
    in its input's. It puts nothing but its packed weight into a state, which no checkpoint holds either, and keeps that
    as it is on a CPU, where bitsandbytes may pack it anew for answering, and no gradient goes through that.

    Args:
        plain: the layer whose weight is quantised.
        storage: of the packed weight: uint8, or the type of what FSDP shards beside it.
        precision: of the weight where it is whole again for the backward pass.
        device: where it goes; it is quantised on ``on``.
        on: a GPU takes a hundredth of the time.
    """

    def __init__(
        self, plain: nn.Linear, storage: torch.dtype, precision: torch.dtype, device: torch.device, on: torch.device
    ) -> None:
        super().__init__(
            plain.in_features, plain.out_features, bias=False, quant_storage=storage, device="meta", **SETTINGS
        )
        weight = plain.weight.detach()
        if weight.is_meta:
            packed, self.quant_state = without_data(weight, storage)
        else:
            packed, self.quant_state = quantize_4bit(
                weight.to(on).contiguous(), blocksize=BLOCK, quant_storage=storage, **SETTINGS
            )
        self.quant_state.dtype = precision
        self.quant_state.to(device)
        self.weight = self.parameter(packed.to(device))
        self.bias = plain.bias

    def parameter(self, packed: Tensor) -> nn.Parameter:
        """The packed weight as bitsandbytes and peft know it."""
        return Params4bit(
            packed,
            requires_grad=False,
            quant_state=self.quant_state,
            blocksize=BLOCK,
            quant_storage=self.quant_storage,
            module=self,
            bnb_quantized=True,
            **SETTINGS,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return bitsandbytes.matmul_4bit(x.to(dtype), self.weight, quant_state=self.quant_state, bias=bias)

    def whole_weight(self) -> Tensor:
        """(out, in), float32."""
        before = self.quant_state.dtype
        self.quant_state.dtype = torch.float32
        try:
            return dequantize_4bit(self.weight.data, self.quant_state)
        finally:
            self.quant_state.dtype = before

    def beside(self) -> Iterator[Tensor]:
        """The tensors of the quantisation beside the packed weight."""
        state = self.quant_state
        yield from (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        nn.Module._save_to_state_dict(self, destination, prefix, keep_vars)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """torch moves a module with it, and may put another parameter in place, which has forgotten what it is."""
        moved = super()._apply(fn, recurse)
        if isinstance(self.weight, Params4bit):
            self.quant_state.to(self.weight.device)
            self.weight = self.parameter(self.weight.data)
        return moved


def without_data(weight: Tensor, storage: torch.dtype) -> tuple[Tensor, Any]:
    """What ``quantize_4bit`` would make of a weight on the meta device. It must not be asked: it keeps a table for all
    later calls on the device of the first."""
    blocks = -(-weight.numel() // BLOCK)
    empty = partial(torch.empty, device="meta")
    second = QuantState(empty(-(-blocks // BLOCKS_OF_BLOCKS)), code=empty(256), blocksize=BLOCKS_OF_BLOCKS)
    state = QuantState(
        empty(blocks, dtype=torch.uint8),
        shape=weight.shape,
        code=empty(16),
        blocksize=BLOCK,
        quant_type=SETTINGS["quant_type"],
        dtype=weight.dtype,
        offset=empty(()),
        state2=second,
    )
    return empty((weight.numel() // (2 * storage.itemsize), 1), dtype=storage), state
