"""A loader worker that the kernel kills for want of memory, for real, in a control group of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from theworld.killed_workers import GROUPS

LIMIT = 1 << 30
HUNGRY = """
import os, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
from torch.utils.data import DataLoader, Dataset
from theworld.errors import RunFailed
from theworld import killed_workers

class Hungry(Dataset):
    def __len__(self): return 1
    def __getitem__(self, index): return len(bytearray(4 << 30))

if sys.argv[2] == "group":
    killed_workers.MESSAGES = Path("/dev/null")
else:
    killed_workers.out_of_memory_kills = lambda: 0
try:
    with killed_workers.killed_workers_as_one_line():
        list(DataLoader(Hungry(), num_workers=1))
except RunFailed as error:
    print(error)
"""


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with 1 GB, below this process's own; of version 1 or 2."""
    own = {line.split(":")[1]: line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    parent, limit = GROUPS / own.get("", "/").lstrip("/"), "memory.max"
    if "memory" in own:
        parent, limit = GROUPS / "memory" / own["memory"].lstrip("/"), "memory.limit_in_bytes"
    group = parent / "theworld-test"
    try:
        group.mkdir()
        (group / limit).write_text(str(LIMIT))
    except OSError as error:
        pytest.skip(f"needs the right to make a control group for memory: {error.strerror}")
    yield group
    group.rmdir()


@pytest.mark.slow
@pytest.mark.parametrize("told_by", ["group", "messages"])
def test_the_line_names_the_oom_killer(small_group: Path, told_by: str) -> None:
    if told_by == "messages" and not Path("/dev/kmsg").exists():
        pytest.skip("the kernel's messages are not to be read here")
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY, str(small_group), told_by],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "a loader worker was killed" in done.stdout, done.stderr
    assert "killed by signal: Killed; the kernel's OOM killer: give the job more memory" in done.stdout
