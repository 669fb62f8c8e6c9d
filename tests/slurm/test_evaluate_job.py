"""recipes/evaluate.py under real daemons: two ranks share the questions, and a job that was killed goes on."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from tests.slurm.cluster import NEEDS_SLURM, Cluster, wait_until

pytestmark = NEEDS_SLURM


def test_each_question_once_though_the_job_is_killed(
    cluster: Cluster, checkout: Path, mds_sample: Path, tmp_path: Path
) -> None:
    out, composer = tmp_path / "answers", Path(sys.executable).with_name("composer")
    asked = f"recipes/evaluate.py builtin:tiny --bench holdout --data {mds_sample} --out {out} --limit 40"
    command = f"srun {composer} -n 2 {asked} --batch-size 1 --max-new-tokens 8 --json {tmp_path / 'scores.json'}"

    def submit() -> str:
        log = ["-N1", "-n1", "-o", str(tmp_path / "job-%j.log")]
        environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return cluster.submit(checkout, *log, "--wrap", command, environment=environment)

    def ids() -> list[str]:
        lines = [line for path in out.rglob("answers-rank*.jsonl") for line in path.read_bytes().split(b"\n")[:-1]]
        return [json.loads(line)["id"] for line in lines]

    first = submit()
    wait_until(lambda: len(ids()) >= 4, "four answers")
    cluster.call("scancel", "--signal=KILL", first)
    cluster.wait_for_state(first, "FAILED", "CANCELLED")
    assert 4 <= len(ids()) < 40
    cluster.wait_for_state(submit(), "COMPLETED")
    assert Counter(Counter(ids()).values()) == {1: 40}
    assert json.loads((tmp_path / "scores.json").read_text())["questions"] == 40
