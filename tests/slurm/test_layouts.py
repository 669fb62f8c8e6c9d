"""How a job may be laid out, from where it may be submitted, and where its one line stands if it may not.

Real daemons with two GPUs a node, which are device files of no use; most tests put a script that tells what it sees in
the place of Python.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SMOKE_YAML
from tests.slurm.cluster import NEEDS_SLURM, Cluster, running_cluster

pytestmark = NEEDS_SLURM

TELLS = """#!/bin/sh
echo "rank $RANK of $WORLD_SIZE, local $LOCAL_RANK of $LOCAL_WORLD_SIZE, sees ${CUDA_VISIBLE_DEVICES:-none}"
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(Path(tempfile.mkdtemp(prefix="slurm"))) as running:
        yield running


@pytest.fixture
def home(checkout: Path) -> Path:
    """The user's, empty; beside it a Python that only tells what it sees, set where sites set theirs."""
    (checkout / "python").write_text(TELLS)
    (checkout / "python").chmod(0o755)
    (checkout / "slurm" / "site.env").write_text(f"export PYTHON={checkout / 'python'}\n")
    folder = checkout / "home"
    folder.mkdir()
    return folder


def run_job(cluster: Cluster, folder: Path, *arguments: str, home: Path) -> tuple[str, dict[str, str]]:
    """Submit from a folder; the job's number and fields when it is over."""
    number = cluster.submit(folder, *arguments, environment={"HOME": str(home)})
    cluster.wait_for_state(number, "COMPLETED", "FAILED")
    return number, cluster.job(number)


def log(folder: Path, number: str) -> str:
    return (folder / f"theworld-{number}.out").read_text()


@pytest.mark.parametrize(
    ("options", "nodes"),
    [
        (["-N2", "--ntasks-per-node=2", "--gpus-per-node=2"], 2),
        (["-N2", "--ntasks-per-node=2", "--gpus-per-task=1"], 2),
        (["-N2", "--gres=gpu:2", "--ntasks-per-gpu=1"], 2),
        (["-N1", "--ntasks-per-node=2", "--gpus-per-node=2", "--gpu-bind=single:1"], 1),
        (["-N1", "--ntasks-per-node=2", "--gres=gpu:2", "--export=NONE"], 1),
    ],
)
def test_each_rank_sees_all_gpus_of_its_node(
    cluster: Cluster, checkout: Path, home: Path, options: list[str], nodes: int
) -> None:
    number, job = run_job(cluster, checkout, *options, "slurm/train.sbatch", "x.yaml", home=home)
    ranks = 2 * nodes
    assert job["JobState"] == "COMPLETED", log(checkout / "logs", number)
    found = re.findall(r"rank (\d+) of (\d+), local (\d+) of (\d+), sees (\S+)", log(checkout / "logs", number))
    assert sorted(found) == [(str(rank), str(ranks), str(rank % 2), "2", "0,1") for rank in range(ranks)]


def test_a_job_without_gpus_takes_its_ranks_from_the_tasks(cluster: Cluster, checkout: Path, home: Path) -> None:
    number, job = run_job(cluster, checkout, "-N2", "--ntasks-per-node=1", "slurm/train.sbatch", "x.yaml", home=home)
    assert job["JobState"] == "COMPLETED", log(checkout / "logs", number)
    assert log(checkout / "logs", number).count("local 0 of 1, sees none") == 2


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["-N2", "-n3"], "error: 3 tasks on 2 nodes are not 2 x 1 ranks; submit with --nodes=2 --ntasks-per-node=R"),
        (["-N2", "--ntasks-per-node=2", "--gpus=3"], "error: a node of the job has 1 GPUs for 2 ranks; submit with"),
        (["-N1", "--ntasks-per-node=1", "--gpus-per-node=2"], "error: a node of the job has 2 GPUs for 1 ranks"),
    ],
)
def test_another_layout_is_one_line_before_anything_is_loaded(
    cluster: Cluster, checkout: Path, home: Path, options: list[str], line: str
) -> None:
    number, job = run_job(cluster, checkout, *options, "slurm/train.sbatch", "x.yaml", home=home)
    printed = log(checkout / "logs", number)
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "2:0", "0"), printed
    assert line in printed
    assert "sees" not in printed


def test_ranks_that_see_one_gpu_each_are_refused(cluster: Cluster, checkout: Path, home: Path) -> None:
    """By a site's own script, say, that starts rank.sh in its way."""
    ranks = "srun --gpus-per-task=1 slurm/rank.sh recipes/train.py x.yaml"
    wrapped = f"export RANKS_PER_NODE=2 PYTHON={checkout / 'python'}; {ranks}"
    options = ["-N1", "--ntasks-per-node=2", "--gpus-per-node=2", "-o", "theworld-%j.out", "--wrap", wrapped]
    number, job = run_job(cluster, checkout, *options, home=home)
    errors = [line for line in log(checkout, number).splitlines() if line.startswith("error:")]
    assert job["ExitCode"] == "2:0", log(checkout, number)
    assert len(errors) == 1
    assert "each of the 2 ranks of this node sees 1 of its GPUs" in errors[0]


def test_submitted_from_another_folder(cluster: Cluster, checkout: Path, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    number, job = run_job(cluster, other, str(checkout / "slurm" / "train.sbatch"), "x.yaml", home=home)
    assert job["ExitCode"] == "2:0"
    assert log(other, number) == (
        f"error: submitted from {other}: paths are relative to the project's folder; cd {checkout} and sbatch there\n"
    )


def test_a_log_folder_that_cannot_be_written(cluster: Cluster, checkout: Path, home: Path) -> None:
    """A file is in its place; and where the whole folder cannot be written, the home folder has the log."""
    (checkout / "logs").rmdir()
    (checkout / "logs").touch()
    number, job = run_job(cluster, checkout, "slurm/train.sbatch", home=home)
    assert "error: usage: sbatch" in log(checkout, number)
    assert job["ExitCode"] == "2:0"
    assert f"Comment=log: {checkout}/theworld-{number}.out" in cluster.call("scontrol", "-o", "show", "job", number)
    (checkout / f"theworld-{int(number) + 1}.out").mkdir()
    number, job = run_job(cluster, checkout, "slurm/train.sbatch", home=home)
    assert log(home, number).startswith(f"{checkout}/logs cannot be written on ")
    assert "error: usage: sbatch" in log(home, number)
    assert f"Comment=log: {home}/theworld-{number}.out" in cluster.call("scontrol", "-o", "show", "job", number)


def test_a_save_folder_that_cannot_be_written(
    cluster: Cluster, checkout: Path, home: Path, raw_sample: Path, mds_sample: Path
) -> None:
    (checkout / "slurm" / "site.env").write_text(f"export PYTHON={sys.executable}\n")
    (checkout / "file").touch()
    settings = [SMOKE_YAML, f"convert.out={mds_sample}", f"save_folder={checkout / 'file' / 'run'}"]
    number, job = run_job(cluster, checkout, "-N2", "--ntasks-per-node=1", "slurm/train.sbatch", *settings, home=home)
    printed = log(checkout / "logs", number)
    assert (job["ExitCode"], job["Restarts"]) == ("2:0", "0"), printed
    assert [line for line in printed.splitlines() if line.startswith("error:")] == [
        f"error: save_folder: {checkout / 'file' / 'run'} cannot be written: {checkout / 'file'}: it is a file; set "
        "another one"
    ]


def test_a_log_that_the_user_has_named_stands(cluster: Cluster, checkout: Path, home: Path) -> None:
    options = ["-o", "mine.out", "-N2", "--ntasks-per-node=1"]
    number, _ = run_job(cluster, checkout, *options, "slurm/train.sbatch", "x.yaml", home=home)
    assert (checkout / "mine.out").read_text().count("sees none") == 2
    assert not list(checkout.rglob(f"theworld-{number}.out"))


def test_a_crashed_job_is_started_again_with_pauses_that_double(cluster: Cluster, checkout: Path, home: Path) -> None:
    """The trainer is one that dies; what judges that is the real thing."""
    (checkout / "python").write_text(
        f'#!/bin/sh\ncase $1 in recipes/train.py) exit 1 ;; esac\nexec {sys.executable} "$@"\n'
    )
    with (checkout / "slurm" / "site.env").open("a") as settings:
        settings.write("CRASH_PAUSE=1\n")
    arguments = [SMOKE_YAML, f"save_folder={checkout / 'run'}"]
    number, job = run_job(cluster, checkout, "-N1", "--ntasks-per-node=1", "slurm/train.sbatch", *arguments, home=home)
    printed = log(checkout / "logs", number)
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "1:0", "2"), printed
    assert re.findall(r"requeued, to start in (\d+) s", printed) == ["1", "2"], printed
    assert "failed after batch 0: exit code 1; starting again in 1 s (failure 1 of 5 without a checkpoint)" in printed
    assert "failed 3 times after batch 0: exit code 1; not started again" in printed
