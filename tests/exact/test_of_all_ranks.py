"""What one rank finds is what all ranks do: real ranks, without a trainer."""

from __future__ import annotations

import pytest

from tests.helpers.ranks import run_on_ranks

RAISE = """
import torch.distributed as dist
from theworld.errors import NotNow
from theworld.ranks import raise_together

dist.init_process_group("gloo")
rank = dist.get_rank()
raise_together(None)
try:
    raise_together(NotNow("away") if rank == 1 else None)
except NotNow as error:
    assert (str(error), error.on_all_ranks) == ("rank 1: away", True)
    print("raised")
"""


@pytest.mark.slow
@pytest.mark.dist
def test_a_fault_of_one_rank_is_raised_by_all() -> None:
    assert run_on_ranks(RAISE, 2) == "raised\n"
