"""A run in stages under real daemons: requeued in the middle of a stage it goes on there, and no stage is run twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.conftest import SMOKE_YAML
from tests.slurm.cluster import NEEDS_SLURM, Cluster, wait_until
from theworld.commands.audit import main as audit
from theworld.errors import EXIT_DONE

pytestmark = NEEDS_SLURM
STAGES = "stages=[{name: align, max_duration: 1ep, freeze: {language: true}}, {name: full, max_duration: 3ep}]"


def test_a_requeued_job_goes_on_in_its_stage(cluster: Cluster, checkout: Path, mds_sample: Path) -> None:
    lines = Path(SMOKE_YAML).read_text().splitlines()
    yaml, run = checkout / "stages.yaml", checkout / "run"
    yaml.write_text("\n".join(line for line in lines if not line.startswith("max_duration")) + "\n")
    settings = [f"convert.out={mds_sample}", f"save_folder={run}", STAGES, "report=false"]
    small = ["global_train_batch_size=2", "device_train_microbatch_size=1", "save_interval=4ba"]
    environment = {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    shape = ["--nodes=2", "--ntasks-per-node=1", "--time=30", "slurm/train.sbatch", str(yaml)]
    number = cluster.submit(checkout, *shape, *settings, *small, environment=environment)
    ledger = run / "full" / "ledger" / "rank0.jsonl"
    wait_until(lambda: ledger.exists() and ledger.read_bytes().count(b"\n") >= 3, "three batches of the second stage")
    cluster.call("scontrol", "requeue", number)
    cluster.wait_for_state(number, "COMPLETED")
    log = next((checkout / "logs").glob(f"*{number}.out")).read_text()
    assert cluster.job(number)["Restarts"] == "1", log
    assert log.count("stage align, 1 of 2") == 1
    assert "stage align is finished: " in log
    stages = json.loads((run / "stages.json").read_text())["stages"]
    assert [one["batch"] for one in stages] == [13, 39], log
    assert audit([str(run), str(mds_sample)]) == EXIT_DONE
