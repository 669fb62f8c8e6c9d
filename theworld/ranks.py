"""Things that one rank finds out for all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from composer.utils import dist, get_device

from theworld.errors import UserError

Found = TypeVar("Found")


def from_rank_zero(find_out: Callable[[], Found]) -> Found:
    """What ``find_out`` gives on rank 0, on all ranks; all ranks call it.

    Raises:
        UserError: on all ranks, if it raised one on rank 0.
    """
    found: list[Any] = [None]
    if dist.get_global_rank() == 0:
        try:
            found[0] = find_out()
        except UserError as error:
            found[0] = error
    dist.broadcast_object_list(found)
    if isinstance(found[0], UserError):
        found[0].on_all_ranks = True
        raise found[0]
    return found[0]  # pyright: ignore[reportReturnType]


def raise_together(fault: UserError | None) -> None:
    """Between two batches: if some rank cannot go on, no rank does; all ranks call it. Costs a sum of one number.

    Raises:
        UserError: on all ranks, the first fault of them, of its own class.
    """
    if dist.get_world_size() == 1:
        if fault is not None:
            raise fault
        return
    device = get_device(None) if torch.distributed.get_backend() == "nccl" else get_device("cpu")
    faults = device.tensor_to_device(torch.tensor([int(fault is not None)], dtype=torch.int32))
    dist.all_reduce(faults, reduce_operation="MAX")
    if not faults.item():
        return
    for rank, found in enumerate(dist.all_gather_object(fault)):
        if found is not None:
            error = type(found)(f"rank {rank}: {found}" if rank else str(found))
            error.on_all_ranks = True
            raise error


def raise_on_all_ranks(fault: str | None) -> None:
    """Let all ranks know what some have found wrong; all ranks call it.

    Raises:
        UserError: on all ranks, the first rank's fault, if any rank has one.
    """
    for rank, found in enumerate(dist.all_gather_object(fault)):
        if found is not None:
            error = UserError(f"rank {rank}: {found}" if rank else found)
            error.on_all_ranks = True
            raise error
