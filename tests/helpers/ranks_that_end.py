"""A program: pairs of ranks, forked, that gather something and end at once, as a command's ranks do. 1 if one hangs."""

from __future__ import annotations

import os
import signal
import sys
import time

from composer.utils import dist

from theworld.rank_group import join_ranks
from theworld.ranks import from_rank_zero, raise_together

PAIRS = 5
LONGEST = 120.0


def gather_and_end(rank: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    join_ranks()
    assert from_rank_zero(lambda: [1, 2]) == [1, 2]
    raise_together(None)
    assert dist.all_gather_object(rank) == [0, 1]


def all_end(children: list[int]) -> bool:
    """Whether all end by themselves, and well; the others are killed."""
    deadline, waiting = time.monotonic() + LONGEST, list(children)
    while waiting and time.monotonic() < deadline:
        for child in list(waiting):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                waiting.remove(child)
                assert status == 0, f"a rank ended with status {status}"
        time.sleep(0.01)
    for child in waiting:
        os.kill(child, signal.SIGKILL)
    return not waiting


def main(first_port: int) -> int:
    for pair in range(PAIRS):
        children = []
        for rank in (0, 1):
            child = os.fork()
            if not child:
                gather_and_end(rank, first_port + pair)
                return 0  # by way of the interpreter's own end
            children.append(child)
        if not all_end(children):
            print(f"pair {pair} hangs")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
