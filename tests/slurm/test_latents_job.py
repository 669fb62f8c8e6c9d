"""slurm/add_latents.sbatch under real daemons: two nodes share the shards, and a job that was preempted goes on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from streaming import StreamingDataset

from tests.conftest import SMOKE_YAML
from tests.helpers.stuck_file import stuck
from tests.slurm.cluster import NEEDS_SLURM, Cluster, wait_until
from theworld.data.shards.add_latents import FRAGMENTS

pytestmark = NEEDS_SLURM


def test_two_nodes_go_on_behind_the_finished_shards(
    cluster: Cluster, checkout: Path, mds_sample: Path, tmp_path: Path
) -> None:
    mds = Path(shutil.copytree(mds_sample, tmp_path / "data" / "mds"))
    shape = ["--nodes=2", "--ntasks-per-node=1", "--time=30", "slurm/add_latents.sbatch"]
    shards = sorted((mds / "gen-00000").glob("*.mds"))
    fragments = mds / "world_latents" / ".gen-00000" / FRAGMENTS
    with stuck(shards[-1]):
        number = cluster.submit(
            checkout,
            *shape,
            SMOKE_YAML,
            f"convert.out={mds}",
            "convert.workers=0",
            environment={"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        wait_until(lambda: len(list(fragments.glob("*.json"))) > 1, "two finished shards")
    cluster.call("scontrol", "requeue", number)
    cluster.wait_for_state(number, "COMPLETED")
    log = next((checkout / "logs").glob(f"*{number}.out")).read_text()
    assert cluster.job(number)["Restarts"] == "1", log
    assert f"of {len(shards)} shards were finished by an earlier run" in log
    images, latents = (StreamingDataset(local=str(folder), batch_size=1) for folder in (mds, mds / "world_latents"))
    assert [latents[row]["id"] for row in range(26)] == [images[row]["id"] for row in range(26)]
