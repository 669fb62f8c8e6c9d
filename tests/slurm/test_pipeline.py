"""slurm/pipeline.sh under real daemons: the jobs and what each waits for; then the conversion's job itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.download.s3_double import Fault, S3Double
from tests.slurm.cluster import NEEDS_SLURM, Cluster, running_cluster, wait_until

pytestmark = NEEDS_SLURM


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(Path(tempfile.mkdtemp(prefix="slurm"))) as running:
        yield running


def test_each_job_waits_for_what_it_needs(cluster: Cluster, checkout: Path) -> None:
    environment = {**cluster.environment, "DOWNLOAD_OPTIONS": "--hold", "PYTHON": sys.executable}
    command = ["slurm/pipeline.sh", "30", "yamls/smoke.yaml", "save_folder=run"]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=True)
    download, first, rest, train = re.findall(r"\d+", done.stdout)
    assert cluster.job(first)["Dependency"].startswith(f"after:{download}+30")
    for job in (rest, train):
        assert cluster.job(job)["Dependency"].startswith(f"afterok:{first}")
    assert cluster.job(train)["Requeue"] == "1"
    cluster.call("scancel", download, first, rest, train)


def test_usage_is_one_line(checkout: Path) -> None:
    for arguments in ([], ["soon", "yamls/smoke.yaml"]):
        done = subprocess.run(
            ["slurm/pipeline.sh", *arguments], cwd=checkout, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")


def test_conversion_job_warned_before_its_time_limit_is_requeued_and_goes_on(
    cluster: Cluster, checkout: Path, raw_sample: Path
) -> None:
    """With --watch the converter never ends by itself while images are missing, so the warning finds it at work."""
    raw = checkout / "raw"
    (raw / "images").mkdir(parents=True)
    shutil.copy(raw_sample / "openspatial.json", raw)
    images = sorted((raw_sample / "images").iterdir())
    for image in images[:10]:
        shutil.copy(image, raw / "images")
    settings = [f"convert.json={raw}/openspatial.json", f"convert.images={raw}/images", f"convert.out={checkout}/mds"]
    job = cluster.submit(
        checkout,
        "slurm/convert.sbatch",
        "yamls/smoke.yaml",
        *settings,
        "--watch",
        "1",
        environment={"PYTHON": sys.executable},
    )
    manifest = checkout / "mds" / "manifest.json"
    wait_until(lambda: manifest.exists() and json.loads(manifest.read_text())["samples"] == 10, "10 samples")
    cluster.call("scancel", "--batch", "--signal=USR1", job)
    wait_until(lambda: cluster.job(job)["Restarts"] == "1", "the job was requeued")
    for image in images[10:]:
        shutil.copy(image, raw / "images" / f".{image.name}.part")
        (raw / "images" / f".{image.name}.part").rename(raw / "images" / image.name)
    cluster.wait_for_state(job, "COMPLETED", "FAILED")
    log = (checkout / "logs" / f"theworld-convert-{job}.out").read_text()
    assert cluster.job(job)["JobState"] == "COMPLETED", log
    assert json.loads(manifest.read_text())["samples"] == len(images)


def test_training_faster_than_the_download_goes_on_to_the_true_end(
    cluster: Cluster, checkout: Path, raw_sample: Path
) -> None:
    """Eight images are there; the others come too slowly. The trainer has used up what is there, leaves with exit code
    75, and is started again after a pause, until all has come."""
    images = {path.name: path.read_bytes() for path in sorted((raw_sample / "images").iterdir())}
    folder, mds, run = checkout / "images", checkout / "mds", checkout / "run"
    folder.mkdir()
    for name in list(images)[:8]:
        (folder / name).write_bytes(images[name])
    with S3Double({f"train/{name}": content for name, content in images.items()}, rate=200) as double:
        settings = [
            f"convert.json={raw_sample / 'openspatial.json'}",
            f"convert.images={folder}",
            f"convert.out={mds}",
            f"save_folder={run}",
            f"download.endpoint={double.endpoint}",
            "download.workers=2",
            "global_train_batch_size=4",
            "train_loader.expected_samples=auto",
            "train_loader.wait=0",
        ]
        environment = {**cluster.environment, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment |= {"CONVERT_EVERY": "1", "REQUEUE_PAUSE": "7", "TRAIN_OPTIONS": "--ntasks-per-node=1"}
        command = ["slurm/pipeline.sh", "0", "yamls/smoke.yaml", *settings]
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=True)
        jobs = re.findall(r"\d+", done.stdout)
        train = jobs[-1]
        log = checkout / "logs" / f"theworld-{train}.out"
        wait_until(lambda: cluster.job(train)["Restarts"] == "1", "the trainer was requeued")
        assert len(list(folder.glob("*.jpg"))) < len(images)
        double.rate = None
        for job in jobs:
            cluster.wait_for_state(job, "COMPLETED", "FAILED")
            assert cluster.job(job)["JobState"] == "COMPLETED", log.read_text()
    text = log.read_text()
    assert "expected samples are not in" in text
    assert "requeued, to start in 7 s" in text
    assert not (run / "failures.jsonl").exists()
    audit = [sys.executable, "recipes/audit.py", str(run), str(mds), "--json", str(checkout / "audit.json")]
    subprocess.run(audit, cwd=ROOT, check=True, capture_output=True)
    verdict = json.loads((checkout / "audit.json").read_text())
    assert verdict["complete"] == verdict["complete_json"] == verdict["at_most_once"] == "yes"
    assert verdict["seen_once"] == len(images)
    assert seconds_of_pause(text, train) >= 7


def test_what_is_not_complete_is_started_again_after_a_pause(
    cluster: Cluster, checkout: Path, raw_sample: Path
) -> None:
    """The bucket cannot give one image now: exit code 75."""
    images = {path.name: path.read_bytes() for path in (raw_sample / "images").iterdir()}
    objects = {f"train/{name}": content for name, content in images.items()}
    with S3Double(objects) as double:
        double.always[next(iter(objects))] = Fault("status", 503)
        settings = [
            f"convert.json={raw_sample / 'openspatial.json'}",
            f"convert.images={checkout / 'images'}",
            f"download.endpoint={double.endpoint}",
            "download.retries=0",
        ]
        job = cluster.submit(
            checkout,
            "slurm/download_openimages.sbatch",
            "yamls/smoke.yaml",
            *settings,
            environment={"PYTHON": sys.executable, "REQUEUE_PAUSE": "40"},
        )
        wait_until(lambda: cluster.job(job)["Restarts"] == "1", "the job was requeued")
        double.always.clear()
        cluster.wait_for_state(job, "COMPLETED", "FAILED")
    text = (checkout / "logs" / f"theworld-download-{job}.out").read_text()
    assert cluster.job(job)["JobState"] == "COMPLETED", text
    assert "exit code 75" in text
    assert "requeued, to start in 40 s" in text
    assert seconds_of_pause(text, job) >= 40


def seconds_of_pause(log: str, job: str) -> float:
    """From the end of a job's first start to its second start, by what the job scripts print."""
    left, again = (
        datetime.fromisoformat(re.findall(rf"(\S+ \S+) job {job} start {what}", log)[0])
        for what in (r"1: requeued", r"2: on ")
    )
    return (again - left).total_seconds()


def test_download_job_ended_by_a_warning_is_requeued_until_complete(
    cluster: Cluster, checkout: Path, raw_sample: Path
) -> None:
    """A slow bucket, and the warning in the middle: what is there stays, the next start brings the rest."""
    images = {path.name: path.read_bytes() for path in (raw_sample / "images").iterdir()}
    folder = checkout / "images"
    objects = {f"train/{name}": content for name, content in images.items()}
    # So slow that the first start cannot be through before it is warned.
    with S3Double(objects, rate=2_000) as double:
        settings = [
            f"convert.json={raw_sample / 'openspatial.json'}",
            f"convert.images={folder}",
            f"download.endpoint={double.endpoint}",
            "download.workers=2",
        ]
        job = cluster.submit(
            checkout,
            "slurm/download_openimages.sbatch",
            "yamls/smoke.yaml",
            *settings,
            environment={"PYTHON": sys.executable},
        )
        wait_until(lambda: len(list(folder.glob("*.jpg"))) >= 2, "two images")
        cluster.call("scancel", "--batch", "--signal=USR1", job)
        wait_until(lambda: cluster.job(job)["Restarts"] == "1", "the job was requeued")
        there = {path.name for path in folder.glob("*.jpg")}
        assert 2 <= len(there) < len(images)
        double.rate = None
        cluster.wait_for_state(job, "COMPLETED", "FAILED")
        log = (checkout / "logs" / f"theworld-download-{job}.out").read_text()
        assert cluster.job(job)["JobState"] == "COMPLETED", log
        assert {path.name: path.read_bytes() for path in folder.glob("*.jpg")} == images
        asked = [key for method, key in double.requests if method == "GET"]
        assert all(asked.count(f"train/{name}") == 1 for name in there)
