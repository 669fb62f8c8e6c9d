"""World latents by several ranks: the same files as by one, whoever is killed, each shard written once."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.conftest import SMOKE_YAML
from tests.helpers.launcher import COMPOSER, run, start
from tests.helpers.stuck_file import stuck
from tests.slurm.cluster import wait_until
from theworld.data.shards.add_latents import FRAGMENTS

pytestmark = [pytest.mark.slow, pytest.mark.dist]


def command(mds: Path, ranks: int) -> list[str]:
    settings = [SMOKE_YAML, f"convert.out={mds}", "convert.workers=0"]
    return [COMPOSER, "-n", str(ranks), "convert/add_latents.py", *settings]


def contents(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_two_ranks_write_what_one_does_though_they_are_killed(mds_sample: Path, tmp_path: Path) -> None:
    one, two = (Path(shutil.copytree(mds_sample, tmp_path / name)) for name in ("one", "two"))
    log = tmp_path / "log"
    assert run(command(one, 1), log) == 0, log.read_text()

    working = two / "world_latents" / ".gen-00000"
    shards = sorted((two / "gen-00000").glob("*.mds"))
    with stuck(shards[-1]):
        killed = start(command(two, 2), log)
        wait_until(lambda: len(list(working.glob(f"{FRAGMENTS}/*.json"))) > 1, "two finished shards")
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    finished = [working / f"shard.{path.stem}.mds" for path in working.glob(f"{FRAGMENTS}/*.json")]
    kept = {path.name: path.stat().st_ino for path in finished}
    assert not (two / "world_latents" / "gen-00000").exists()

    assert run(command(two, 2), log) == 0, log.read_text()
    assert contents(two / "world_latents") == contents(one / "world_latents")
    generation = two / "world_latents" / "gen-00000"
    assert {name: (generation / name).stat().st_ino for name in kept} == kept, "written again"
    said = log.read_text()
    assert f"{len(kept)} of {len(shards)} shards were finished by an earlier run" in said
    assert said.count(" latents added in 1 generations") == 2, "rank 0 alone speaks"


def test_a_fault_of_one_rank_is_one_line_and_ends_all(mds_sample: Path, tmp_path: Path) -> None:
    mds, log = Path(shutil.copytree(mds_sample, tmp_path / "mds")), tmp_path / "log"
    (mds / "gen-00000" / "shard.00001.mds").unlink()  # of the second rank
    assert run(command(mds, 2), log) != 0
    said = log.read_text()
    assert said.count("error:") == 1
    assert "error: rank 1: " in said
    assert "shard 1 cannot be read" in said
    assert "Traceback" not in said
    assert not (mds / "world_latents" / "gen-00000").exists()
