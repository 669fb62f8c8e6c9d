"""Ranks of a command that does not train: they meet over the CPU's network, and wait long for the slowest."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from torch import distributed

from theworld import cli
from theworld.errors import UserError

LONGEST_WAIT = timedelta(days=7)
"""For the slowest rank."""


def join_ranks() -> None:
    """Let the ranks speak to each other from here on; nothing for a process that is alone.

    The group is left as it is at the end, as the trainer leaves its own: destroying one of gloo's waits for its threads
    without letting go of Python's lock, for which one of them may be waiting to give the last answer's memory back.
    """
    if cli.world_size() > 1:
        distributed.init_process_group("gloo", timeout=LONGEST_WAIT)


def local_ranks() -> int:
    """Ranks on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if cli.world_size() > 1 else 1


def own_devices() -> list[str]:
    """The devices of this rank: its GPU, or every GPU if it is alone, or the CPU.

    Raises:
        UserError: the machine has fewer GPUs than ranks.
    """
    gpus = torch.cuda.device_count()
    if not gpus:
        return ["cpu"]
    if cli.world_size() == 1:
        return [f"cuda:{number}" for number in range(gpus)]
    if gpus < local_ranks():
        raise UserError(f"{gpus} GPUs for {local_ranks()} ranks of this machine; start as many ranks as it has GPUs")
    return [f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"]
