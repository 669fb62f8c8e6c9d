"""What the parts of the model keep in memory for the backward pass, measured on tensors that have no data.

A layer of the real shapes runs forward and backward under torch's ``FakeTensorMode``: every allocation is recorded and
none is made, so that the figures are those of the layer's own code and take a fraction of a second on any machine.
Attention is a CPU's fused one, which keeps what a GPU's memory-efficient one does (queries, keys, values, the mask, the
result).
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from transformers.models.gemma3.modeling_gemma3 import Gemma3DecoderLayer
from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer

from theworld.compat import layer_inputs
from theworld.model.configuration import TheWorldConfig
from theworld.model.loss import CHUNK_TOKENS, summed_loss
from theworld.model.world_encoder import WorldEncoder


@dataclass(frozen=True)
class Footprint:
    """Bytes needed besides weights, gradients and inputs.

    Attributes:
        kept: by each layer, from its forward pass to its backward pass.
        passing: at the peak, beyond what is kept; counted once for all layers.
    """

    kept: int
    passing: int

    def of(self, layers: int) -> Footprint:
        """The footprint of this many layers in sequence."""
        return Footprint(self.kept * layers, self.passing)


@dataclass(frozen=True)
class Precision:
    """How a part computes.

    Attributes:
        weights: dtype of the part's weights, and of the hidden states that it is given.
        autocast: dtype of matrix products under autocast; None without it.
        trains: whether the weights get gradients.
    """

    weights: torch.dtype
    autocast: torch.dtype | None
    trains: bool


class _Allocations(TorchDispatchMode):
    """Counts the bytes of every storage that is made, until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()
        self.alive = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.count(tensor)
        return result

    def know(self, *tensors: Tensor | None) -> None:
        """Leave these out of the count."""
        for tensor in tensors:
            if tensor is not None:
                self.known.add(tensor.untyped_storage())

    def count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self.known:
            return
        self.known.add(storage)
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self.freed, size).atexit = False

    def freed(self, size: int) -> None:
        self.alive -= size


@contextmanager
def _fake(how: Precision) -> Iterator[None]:
    with FakeTensorMode(), torch.autocast("cpu", how.autocast or torch.bfloat16, enabled=how.autocast is not None):
        yield


def _cast(layer: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The layer with parameters of this dtype. ``to`` puts them in place of those that are there, which newer releases
    of torch refuse for a tensor without data that something looks at."""
    for module in layer.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.detach().to(dtype)))
    return layer


def _states(result: Any) -> Tensor:
    """A layer's hidden states; some releases give them in a tuple with other things."""
    return result[0] if isinstance(result, tuple) else result


def _measure(
    layers: list[nn.Module],
    start: Tensor,
    run: Callable[[nn.Module, Tensor], Tensor],
    others: list[Tensor],
    trains: bool,
) -> Footprint:
    """Run two layers forward and, if there is something to differentiate, backward.

    The second of two layers shows what every further one keeps: its input may be kept, or no longer needed.
    """
    allocations = _Allocations()
    for layer in layers:
        for parameter in layer.parameters():
            parameter.requires_grad_(trains)
            parameter.grad = torch.zeros_like(parameter) if trains else None
            allocations.know(parameter, parameter.grad)
    allocations.know(start, *others)
    after = []
    with allocations:
        states = start
        for layer in layers:
            states = run(layer, states)
            after.append(allocations.alive)
        if states.requires_grad:
            states.backward(torch.zeros_like(states))
    kept = after[-1] - after[-2] if len(after) > 1 else after[0]
    return Footprint(kept, allocations.peak - kept * len(layers))


def language_layer(config: TheWorldConfig, samples: int, tokens: int, how: Precision, recompute: bool) -> Footprint:
    """A decoder layer on (samples, tokens), whose input needs a gradient, since the projector before it trains."""
    text = copy.deepcopy(config.text_config)
    if text._attn_implementation == "flex_attention":
        # It keeps the same tensors, but runs only on a GPU.
        text._attn_implementation = "sdpa"
    with _fake(how):
        layers: list[nn.Module] = [_cast(Gemma3DecoderLayer(text, index), how.weights) for index in (0, 1)]
        states = torch.empty(samples, tokens, text.hidden_size, dtype=how.weights, requires_grad=True)
        rotation = torch.empty(samples, tokens, text.head_dim, dtype=how.weights)
        # transformers gives eager attention a mask to be added, and the others one of booleans.
        kind = how.weights if text._attn_implementation == "eager" else torch.bool
        mask = torch.empty(samples, 1, tokens, tokens, dtype=kind)
        both = (rotation, rotation)

        def run(layer: nn.Module, states: Tensor) -> Tensor:
            inputs = {**layer_inputs(both), "attention_mask": mask}
            if recompute:
                return _states(checkpoint(layer, states, use_reentrant=False, **inputs))
            return _states(layer(states, **inputs))

        return _measure(layers, states, run, [rotation, mask], how.trains)


def vision_layer(config: TheWorldConfig, pictures: int, how: Precision, recompute: bool) -> Footprint:
    """A layer of the vision tower; nothing is kept of one that does not train."""
    vision = config.vision_config
    with _fake(how):
        layers: list[nn.Module] = [_cast(SiglipEncoderLayer(vision), how.weights) for _ in range(2)]
        patches = (vision.image_size // vision.patch_size) ** 2
        states = torch.empty(pictures, patches, vision.hidden_size, dtype=how.weights, requires_grad=how.trains)

        def run(layer: nn.Module, states: Tensor) -> Tensor:
            if recompute and how.trains:
                return _states(checkpoint(layer, states, None, use_reentrant=False))
            return _states(layer(states, None))

        return _measure(layers, states, run, [], how.trains)


def vae_encoder(config: TheWorldConfig, pictures: int, how: Precision) -> Footprint:
    """The encoder of the world; nothing is kept if it does not train."""
    with _fake(how):
        encoder = _cast(WorldEncoder(config.vae), how.weights)
        pixels = torch.empty(pictures, 3, 1, config.world_image_size, config.world_image_size, dtype=how.weights)

        def run(layer: nn.Module, pixels: Tensor) -> Tensor:
            with torch.set_grad_enabled(how.trains):
                return layer.vae.encode(pixels).latent_dist.mode()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]

        return _measure([encoder], pixels, run, [], how.trains)


def loss_chunk(config: TheWorldConfig, how: Precision, answers: int = CHUNK_TOKENS) -> Footprint:
    """The loss of as many answer tokens as have logits at the same time."""
    text = config.text_config
    with _fake(how):
        head = nn.Linear(text.hidden_size, text.vocab_size, bias=False, dtype=how.weights)
        states = torch.empty(answers, text.hidden_size, dtype=how.weights, requires_grad=True)
        targets = torch.empty(answers, dtype=torch.long)
        measured = _measure(
            [head], states, lambda layer, some: summed_loss(layer, some, targets)[0], [targets], how.trains
        )
        return Footprint(0, measured.kept + measured.passing)
