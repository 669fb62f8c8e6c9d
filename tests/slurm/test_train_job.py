"""slurm/train.sbatch under real daemons: two nodes, preempted, timed out, cancelled, a node lost; then the audit."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import SMOKE_YAML
from tests.slurm.cluster import NEEDS_SLURM, Cluster, wait_until
from theworld.data.shards.ids import data_set_ids

pytestmark = NEEDS_SLURM


class Run:
    """A training job and what it leaves."""

    def __init__(self, cluster: Cluster, checkout: Path, raw: Path, mds: Path) -> None:
        self.cluster = cluster
        self.checkout = checkout
        self.mds = mds
        self.folder = checkout / "run"
        self.settings = [
            SMOKE_YAML,
            f"convert.json={raw / 'openspatial.json'}",
            f"convert.images={raw / 'images'}",
            f"convert.out={mds}",
            f"save_folder={self.folder}",
            "global_train_batch_size=2",
            "device_train_microbatch_size=1",
            "save_interval=4ba",
        ]
        self.number = ""

    def submit(self, *options: str) -> None:
        environment = {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CRASH_PAUSE": "2"}
        shape = ["--nodes=2", "--ntasks-per-node=1", "--time=30"]
        self.number = self.cluster.submit(
            self.checkout, *shape, *options, "slurm/train.sbatch", *self.settings, environment=environment
        )

    def batches(self, launch: int) -> int:
        """Batches that rank 0 has done in a launch."""
        path = self.folder / "ledger" / "rank0.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return sum(json.loads(line)["launch"] == launch for line in lines)

    def wait_for_batches(self, count: int, launch: int = 1) -> None:
        try:
            wait_until(lambda: self.batches(launch) >= count, f"{count} batches of launch {launch}")
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.log()}") from error

    def log(self) -> str:
        path = self.checkout / "logs" / f"theworld-{self.number}.out"
        return path.read_text() if path.exists() else ""

    def finish(self) -> None:
        self.cluster.wait_for_state(self.number, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        assert self.cluster.job(self.number)["JobState"] == "COMPLETED", self.log()

    def lost_steps(self) -> list[int]:
        """What the trainer said of each resume."""
        return [int(count) for count in re.findall(r"resumes from .*; (\d+) steps were lost", self.log())]

    def assert_exactly_once(self) -> None:
        """From the ledger files alone: of each batch only the latest launch's lines count."""
        lines = [
            json.loads(line)
            for path in (self.folder / "ledger").glob("rank*.jsonl")
            for line in path.read_text().splitlines()
        ]
        latest: dict[int, int] = {}
        for line in lines:
            latest[line["batch"]] = max(latest.get(line["batch"], 0), line["launch"])
        seen = [name for line in lines if line["launch"] == latest[line["batch"]] for name in line["ids"]]
        ids = [name for generation in data_set_ids(str(self.mds)) for name in generation.ids()]
        assert sorted(seen) == sorted(ids), self.log()


@pytest.fixture
def run(cluster: Cluster, checkout: Path, raw_sample: Path, mds_sample: Path) -> Run:
    return Run(cluster, checkout, raw_sample, mds_sample)


def preempt(cluster: Cluster, checkout: Path) -> None:
    """A short job of a higher partition takes both nodes."""
    other = cluster.submit(checkout, "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "srun true")
    cluster.wait_for_state(other, "COMPLETED")


def test_preempted_with_grace_loses_no_step(cluster: Cluster, checkout: Path, run: Run) -> None:
    run.settings.append("preflight=true")
    run.submit()
    run.wait_for_batches(2)
    preempt(cluster, checkout)
    run.wait_for_batches(1, launch=2)
    run.finish()
    assert run.lost_steps() == [0]
    assert "stopping after batch" in run.log()
    assert run.log().count("preflight:") == 2, "each start looks first"
    run.assert_exactly_once()


def test_preempted_without_grace_goes_on_from_the_last_checkpoint(cluster: Cluster, checkout: Path, run: Run) -> None:
    """Without grace SLURM sends TERM and, KillWait later, KILL: a save within that time may still succeed."""
    run.submit("-p", "nograce")
    run.wait_for_batches(5)
    preempt(cluster, checkout)
    run.finish()
    assert len(run.lost_steps()) == 1
    assert 0 <= run.lost_steps()[0] < 8
    run.assert_exactly_once()


def test_warning_before_the_time_limit_requeues(cluster: Cluster, run: Run) -> None:
    """SLURM looks at time limits every 30 s only, so the warning is sent as it would send it."""
    run.submit()
    run.wait_for_batches(2)
    cluster.call("scancel", "--batch", "--signal=USR1", run.number)
    run.wait_for_batches(1, launch=2)
    run.finish()
    assert run.lost_steps() == [0]
    assert "stopping after batch" in run.log()
    assert "requeued" in run.log()
    run.assert_exactly_once()


def test_stops_by_itself_near_the_end_of_its_time(cluster: Cluster, checkout: Path, run: Run) -> None:
    """No signal comes; the job's end, read from SLURM, is enough."""
    lines = (checkout / "slurm" / "train.sbatch").read_text().replace("#SBATCH --signal=B:USR1@180\n", "")
    (checkout / "slurm" / "train.sbatch").write_text(lines)
    # Of the job's 1,800 seconds: it has to stop 110 seconds after its start, in the middle of far too many passes.
    run.settings += ["preemption.grace=1690", "max_duration=500ep"]
    run.submit()
    wait_until(lambda: "requeued" in run.log() or "exit code 2" in run.log(), "the end of the first start")
    assert "the job's time is nearly over" in run.log(), run.log()
    assert "requeued" in run.log()
    cluster.call("scancel", run.number)


def test_cancelled_stays_cancelled(cluster: Cluster, run: Run) -> None:
    run.submit()
    run.wait_for_batches(1)
    cluster.call("scancel", run.number)
    cluster.wait_for_state(run.number, "CANCELLED")
    wait_until(lambda: not list(cluster.processes()), "no process of the job")
    assert cluster.job(run.number)["JobState"] == "CANCELLED"
    assert cluster.job(run.number)["Restarts"] == "0"


def test_node_set_down_in_the_middle(cluster: Cluster, run: Run) -> None:
    run.submit()
    run.wait_for_batches(5)
    cluster.kill_node("n2")
    wait_until(lambda: cluster.job(run.number)["Restarts"] == "1", "the job was requeued")
    wait_until(lambda: not list(cluster.processes()), "no process of the first start")
    cluster.start_node("n2")
    # It comes back by itself when its daemon registers (ReturnToService=2).
    wait_until(lambda: "DOWN" not in cluster.call("scontrol", "-o", "show", "node", "n2"), "the node is back")
    run.finish()
    assert run.lost_steps()[0] >= 1
    run.assert_exactly_once()


def test_the_same_crash_three_times_stops_with_the_reason(cluster: Cluster, run: Run) -> None:
    """A learning rate far too high gives a loss that is no number, at the same step at every start."""
    run.settings += ["callbacks.nan_monitor={}", "optimizer.lr=1e30", "scheduler.t_warmup=0ba", "save_interval=100ba"]
    run.submit()
    cluster.wait_for_state(run.number, "FAILED", "COMPLETED")
    assert cluster.job(run.number)["JobState"] == "FAILED", run.log()
    assert re.search(r"failed 3 times after batch \d+: .*NaN.*not started again", run.log()), run.log()
    assert re.findall(r"requeued, to start in (\d+) s", run.log()) == ["2", "4"], run.log()
    failures = [json.loads(line) for line in (run.folder / "failures.jsonl").read_text().splitlines()]
    assert [failure["launch"] for failure in failures] == [1, 2, 3]
    assert len({failure["batch"] for failure in failures}) == 1


def test_bad_configuration_is_not_started_again(cluster: Cluster, run: Run) -> None:
    run.settings.append("global_train_batch_size=3")
    run.submit()
    cluster.wait_for_state(run.number, "FAILED", "COMPLETED")
    assert "3 does not divide by 2 ranks" in run.log()
    assert cluster.job(run.number)["Restarts"] == "0"
