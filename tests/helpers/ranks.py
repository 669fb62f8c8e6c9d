"""A script run by several ranks of one process group, without Composer's launcher."""

from __future__ import annotations

import os
import socket

from tests.helpers.launcher import Script


def run_on_ranks(script: str, ranks: int, *arguments: str) -> str:
    """What rank 0 printed; the script calls ``init_process_group("gloo")``, and all ranks must end well."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    runs = []
    for rank in range(ranks):
        settings = {"RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | {name: str(value) for name, value in settings.items()} | {"OMP_NUM_THREADS": "1"}
        runs.append(Script(script, *arguments, environment=environment))
    ends = [run.end() for run in runs]
    assert [end.returncode for end in ends] == [0] * ranks, ends
    return ends[0].stdout
