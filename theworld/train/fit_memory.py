"""Whether a run fits the GPU: said before anything is loaded, with the keys that would make it fit."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from composer.utils import dist

from theworld.config.schema import Config
from theworld.errors import UserError
from theworld.train.memory import GIB, MemoryEstimate, MemoryOfRun, microbatch_size, recomputes, sharding

log = logging.getLogger(__name__)

LENGTH_STEP = 64
"""Tokens to which a length that fits is told."""
MOST_RANKS = 1024


def smallest_gpu(config: Config) -> int | None:
    """Bytes of the smallest GPU of all ranks; None if the run is on CPUs. All ranks call it."""
    if config.device == "cpu" or not torch.cuda.is_available():
        return None
    own = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return min(dist.all_gather_object(own))


def fit_memory(config: Config, memory: MemoryOfRun, ranks: int, gpu: int) -> None:
    """Decide on ``model.activation_checkpointing: null``, and refuse a run that cannot fit.

    A run is refused if not even samples without text fit; if only the longest that ``max_seq_len`` allows do not, it
    is warned of, since the data may have none.

    Args:
        config: the run; ``activation_checkpointing`` is set in it.
        memory: its model.
        ranks: GPUs that train together.
        gpu: bytes of the smallest one.

    Raises:
        UserError: it does not fit; with the arithmetic, and keys with which it would.
    """
    longest = config.train_loader.dataset.max_seq_len
    if config.model.activation_checkpointing is None:
        config.model.activation_checkpointing = wants_recomputation(config, memory, ranks, gpu)
        chosen = "on" if config.model.activation_checkpointing else "off"
        log.info("model.activation_checkpointing: null: %s", chosen)
    least = memory.estimate(config, ranks, min(memory.least_tokens, longest))
    if least.total > gpu:
        raise UserError(f"memory: {needs(least, gpu)}; {remedy(config, memory, ranks, gpu)}")
    most = memory.estimate(config, ranks, longest)
    if most.total > gpu:
        fits = longest_that_fits(config, memory, ranks, gpu)
        log.warning(
            "memory: samples of up to about %d tokens fit, and train_loader.dataset.max_seq_len allows %d: %s; %s",
            fits,
            longest,
            needs(most, gpu),
            remedy(config, memory, ranks, gpu),
        )
    else:
        log.info("memory: about %.1f of %.1f GiB: %s", most.total / GIB, gpu / GIB, most)


def needs(estimate: MemoryEstimate, gpu: int) -> str:
    """What is needed and what is there, in words."""
    return f"about {estimate.total / GIB:.1f} GiB are needed on a GPU of {gpu / GIB:.1f} GiB ({estimate})"


def wants_recomputation(config: Config, memory: MemoryOfRun, ranks: int, gpu: int) -> bool:
    """Whether the longest samples do not fit without it. It costs about a quarter of a step."""
    if recomputes(config):
        return False
    return memory.estimate(config, ranks, config.train_loader.dataset.max_seq_len).total > gpu


def longest_that_fits(config: Config, memory: MemoryOfRun, ranks: int, gpu: int) -> int:
    """Tokens of the longest sample that fits, to :data:`LENGTH_STEP`; at least that of a sample without text."""
    low, high = memory.least_tokens, config.train_loader.dataset.max_seq_len
    while high - low > LENGTH_STEP:
        middle = (low + high) // 2
        low, high = (middle, high) if memory.estimate(config, ranks, middle).total <= gpu else (low, middle)
    return low


def changes(config: Config, ranks: int) -> Iterator[tuple[Config, list[str]]]:
    """Configurations that need less memory, those that cost least time first, each with the keys that it sets."""
    smaller = []
    size = microbatch_size(config)
    while size > 1:
        size //= 2
        smaller.append(size)
    for size in smaller:
        yield changed(config, size)
    if not recomputes(config):
        for size in [None, *smaller]:
            yield changed(config, size, recompute=True)
    if ranks > 1 and sharding(config) is None:
        for recompute in (False, True):
            yield changed(config, 1, recompute, shard=True)


def changed(
    config: Config, microbatch: int | None, recompute: bool = False, shard: bool = False
) -> tuple[Config, list[str]]:
    """A copy with these keys set, and the keys as on a command line."""
    other, keys = deepcopy(config), []
    if shard:
        other.parallelism_config = {**(config.parallelism_config or {}), "fsdp": {}}
        keys.append("parallelism_config={fsdp: {}}")
    if microbatch is not None and microbatch != config.device_train_microbatch_size:
        other.device_train_microbatch_size = microbatch
        keys.append(f"device_train_microbatch_size={microbatch}")
    if recompute and not recomputes(config):
        other.model.activation_checkpointing = True
        keys.append("model.activation_checkpointing=true")
    return other, keys


def remedy(config: Config, memory: MemoryOfRun, ranks: int, gpu: int) -> str:
    """The keys with which the longest samples fit; failing that, more ranks or shorter samples. A base in 4 bits, which
    changes what is learnt, stands behind them."""
    found = keys_that_fit(config, memory, ranks, gpu)
    if config.model.lora is not None and not config.model.load_in_4bit:
        found += "; model.load_in_4bit=true has the base under the adapters in a quarter of its bytes"
    return found


def keys_that_fit(config: Config, memory: MemoryOfRun, ranks: int, gpu: int) -> str:
    """The keys with which the longest samples fit; failing that, more ranks or shorter samples."""
    longest = config.train_loader.dataset.max_seq_len
    for other, keys in changes(config, ranks):
        total = memory.estimate(other, ranks, longest).total
        if total <= gpu:
            return f"it fits with {' '.join(keys)} ({total / GIB:.1f} GiB)"
    least, keys = changed(config, 1, recompute=True, shard=True)
    more = ranks
    while more < MOST_RANKS:
        more *= 2
        total = memory.estimate(least, more, longest).total
        if total <= gpu:
            return f"it fits on {more} GPUs with {' '.join(keys)} ({total / GIB:.1f} GiB)"
    if memory.estimate(least, ranks, memory.least_tokens).total <= gpu:
        tokens = longest_that_fits(least, memory, ranks, gpu)
        return f"it fits with {' '.join(keys)} train_loader.dataset.max_seq_len={tokens}"
    return "no key makes it fit: freeze more (model.freeze) or use a larger GPU"


@contextmanager
def memory_errors_as_one_line(config: Config) -> Iterator[None]:
    """Turn every way in which torch and Composer say that the GPU's memory is full into one line.

    Composer's ``auto`` raises a plain RuntimeError when a single sample does not fit.

    Raises:
        UserError: instead of these.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"out of GPU memory: {'; or '.join(hints(config))}") from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether it says that a GPU's memory is full."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        said in text for said in ("CUDA out of memory", "CUDA error: out of memory")
    )


def hints(config: Config) -> list[str]:
    """What to change that is not set already."""
    found = []
    if config.device_train_microbatch_size != 1:
        found.append("lower device_train_microbatch_size")
    if not recomputes(config):
        found.append("set model.activation_checkpointing=true")
    if sharding(config) is None:
        found.append("shard the model over several GPUs (parallelism_config={fsdp: {}})")
    return [*found, "lower train_loader.dataset.max_seq_len"]
