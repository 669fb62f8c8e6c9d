"""Runs that go up to the Hub and come down from it, by the real commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hub_double import WRITE_TOKEN, Fault, HubDouble
from hub_run import REPO, HubRun, holds

from tests.conftest import smoke_config
from tests.helpers.launcher import ROOT, ended
from theworld.data.shards.convert import convert
from theworld.synthetic import generate

pytestmark = pytest.mark.slow

SCHEDULE = "scheduler.t_max=7ba"
"""The whole pass's, so that a run that ends in the middle differs in nothing but its end."""

LOAD = """
import sys, torch
from safetensors.torch import load_file
exec(sys.argv[1])
weights = load_file(sys.argv[2])
own = model.state_dict()
assert weights and all(torch.equal(own[name], weight) for name, weight in weights.items())
print(type(model).__name__, type(processor).__name__, model.model.world_encoder is not None)
"""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a short name: sockets below it must not become too long."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for all tests, since the Hub's client reads where it is when it is imported."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def run(hub: HubDouble, mds_sample: Path, folder: Path, home: Path) -> HubRun:
    shutil.rmtree(home)
    home.mkdir()
    return HubRun(hub, mds_sample, folder / "one", home)


def test_a_run_goes_on_from_nothing_but_the_repos_name(run: HubRun, hub: HubDouble, folder: Path) -> None:
    unbroken = HubRun(hub, run.mds, folder / "unbroken", run.home)
    assert unbroken.train(SCHEDULE, repo=None) == 0, unbroken.output

    assert run.train(SCHEDULE, "max_duration=4ba") == 0, run.output
    assert run.titles() == ["smoke: batch 2", "smoke: batch 4"]
    first_part = run.losses()
    run.forget()
    assert run.train(SCHEDULE) == 0, run.output
    assert "attempt 2 resumes from" in run.output
    assert "0 steps were lost" in run.output
    assert run.titles()[2:] == ["smoke: batch 6", "smoke: batch 7"]
    assert {**first_part, **run.losses()} == unbroken.losses()
    assert [launch["launch"] for launch in run.launches()] == [1, 2]
    audit = [sys.executable, "recipes/audit.py", str(run.save_folder), str(run.mds)]
    assert run.run(audit) == 0, run.output
    assert "seen once          26" in run.output

    run.forget()
    assert run.train(SCHEDULE) == 0, run.output
    assert "finished already" in run.output
    assert len(run.titles()) == 4, "what came from the Hub is not sent back"
    assert not any(WRITE_TOKEN in log.read_text() for log in run.logs)
    assert not holds(run.save_folder, WRITE_TOKEN)
    assert not any(WRITE_TOKEN.encode() in data for data in hub.repos[REPO].head.files.values())


def test_a_mixture_goes_on_from_the_repo_in_the_middle_of_its_pass(run: HubRun, hub: HubDouble, folder: Path) -> None:
    """26 samples once and nine twice, eleven batches: copies, places and the next pass's turns come with the state."""
    generate(folder / "other", samples=9, seed=11, size=160, workers=1)
    convert(smoke_config(folder / "other", folder / "other/mds").convert)
    sources = f"{{name: a, remote: {run.mds}}}, {{name: b, remote: {folder}/other/mds, repeat: 2}}"
    mixture = ("train_loader.dataset.remote=null", f"train_loader.datasets=[{sources}]", "scheduler.t_max=11ba")
    unbroken = HubRun(hub, run.mds, folder / "unbroken", run.home)
    assert unbroken.train(*mixture, repo=None) == 0, unbroken.output
    assert run.train(*mixture, "max_duration=6ba") == 0, run.output
    first_part = run.losses()
    run.forget()
    assert run.train(*mixture) == 0, run.output
    assert "attempt 2 resumes from" in run.output
    assert "the pass goes on after 24 of 44 samples" in run.output
    assert {**first_part, **run.losses()} == unbroken.losses()
    audit = [sys.executable, "recipes/audit.py", str(run.save_folder), "--json", str(folder / "audit.json")]
    assert run.run(audit) == 0, run.output
    assert "as often as due        35" in run.output
    lines = [json.loads(line)["ids"] for line in (run.save_folder / "ledger/rank0.jsonl").read_text().splitlines()]
    counts = Counter(name for ids in lines for name in ids)
    assert {name.split("/")[0]: count for name, count in counts.items()} == {"a": 1, "b": 2}
    assert (len(counts), sum(counts.values())) == (35, 44)


def test_the_lines_on_the_card_load_the_model(run: HubRun, hub: HubDouble) -> None:
    assert run.train("max_duration=6ba", "hub.every=2") == 0, run.output
    assert run.titles() == ["smoke: batch 4", "smoke: batch 6"], "each second save, and the last"
    card = hub.repos[REPO].head.files["README.md"].decode()
    lines = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert lines is not None
    assert lines[1].count("\n") == 3
    fingerprint = json.loads((run.save_folder / "launches.jsonl").read_text().splitlines()[0])["fingerprint"]
    for fact in (fingerprint, "26 samples", "6 optimizer steps", "world projector", "lr: 0.003", "| torch | 2."):
        assert fact in card, card
    assert str(run.folder) not in card
    weights = run.folder / "model.safetensors"
    weights.write_bytes(hub.repos[REPO].head.files["model.safetensors"])
    assert run.run([sys.executable, "-c", LOAD, lines[1], str(weights)]) == 0, run.output
    assert "TheWorldForConditionalGeneration TheWorldProcessor True" in run.output.splitlines()


def test_a_stop_with_a_stalled_hub_keeps_to_its_grace_and_the_next_start_makes_up(run: HubRun, hub: HubDouble) -> None:
    stall = Fault(f"POST /api/models/{REPO}/commit", action="stall")
    hub.faults.append(stall)
    trainer = run.start("preemption.grace=15", "save_interval=2ba", "max_duration=40ep")
    run.wait_for(trainer, stall.reached.is_set)
    batches = run.save_folder / "ledger" / "rank0.jsonl"
    seen = batches.read_bytes().count(b"\n")
    # Training does not wait for the network.
    run.wait_for(trainer, lambda: batches.read_bytes().count(b"\n") > seen + 4)
    trainer.send_signal(signal.SIGTERM)
    # The commit stands still for as long as the test does: a run that waited for it would not end.
    assert ended(trainer) == 85, run.output
    assert "the next start of the run does it" in run.output
    stall.release.set()
    saved = max(int(path.name.split("-")[1][2:]) for path in run.save_folder.glob("ep*-ba*"))
    assert run.train(f"max_duration={saved}ba") == 0, run.output
    assert "finished already" in run.output
    assert run.titles()[-1] == f"smoke: batch {saved}"


def test_killed_during_an_upload_the_repo_holds_the_checkpoint_before(run: HubRun, hub: HubDouble) -> None:
    trainer = run.start("max_duration=40ep")
    run.wait_for(trainer, lambda: REPO in hub.repos and run.titles())
    stall = Fault(f"POST /api/models/{REPO}/commit", action="stall")
    with hub.lock:
        hub.faults.append(stall)
    run.wait_for(trainer, stall.reached.is_set)
    before = hub.repos[REPO].head
    os.killpg(trainer.pid, signal.SIGKILL)
    assert ended(trainer) == -signal.SIGKILL
    assert hub.repos[REPO].head is before
    assert not holds(run.folder, WRITE_TOKEN)
    run.forget()
    batch = int(before.title.rpartition(" ")[2])
    assert run.train(f"max_duration={batch + 1}ba") == 0, run.output
    assert f"-ba{batch}-rank0.pt after batch {batch};" in run.output


def test_a_stage_takes_the_weights_of_a_repo(run: HubRun, hub: HubDouble, folder: Path) -> None:
    assert run.train("max_duration=2ba") == 0, run.output
    second = HubRun(hub, run.mds, folder / "two", run.home)
    stage = [f"load_path=hf://{REPO}", "load_weights_only=true", "model.freeze.language=false", "max_duration=2ba"]
    assert second.train(*stage, repo="someone/second") == 0, second.output
    assert second.launches()[0]["resumed_batch"] == 0
    names = hub.repos["someone/second"].head.files
    assert len(names["model.safetensors"]) > 10 * len(hub.repos[REPO].head.files["model.safetensors"])
    # The whole of it, from another repo than the run's own, continued.
    third = HubRun(hub, run.mds, folder / "three", run.home)
    whole = ["load_path=hf://someone/second", "model.freeze.language=false", "max_duration=3ba"]
    assert third.train(*whole, repo=None) == 0, third.output
    assert "attempt 2 resumes from" in third.output


@pytest.mark.parametrize(
    ("settings", "token", "says"),
    [
        (["hub.repo_id=someone"], WRITE_TOKEN, "hub.repo_id: 'someone': expected OWNER/NAME"),
        ([f"hub.repo_id={REPO}"], None, "hub.repo_id: no token to upload"),
        (["load_path=hf://someone"], WRITE_TOKEN, "load_path: hf://someone: expected hf://OWNER/NAME"),
        (["load_path=hf://someone/absent"], WRITE_TOKEN, "load_path: hf://someone/absent: the Hub has no repo"),
        (["push_to_hub=true"], WRITE_TOKEN, "unknown key push_to_hub: set hub.repo_id"),
    ],
)
def test_what_cannot_work_is_one_line_before_a_model_loads(
    run: HubRun, settings: list[str], token: str | None, says: str
) -> None:
    run.token = token
    assert run.train(*settings, repo=None) == 2
    assert len(run.errors) == 1
    assert says in run.errors[0]
    assert "parameters train" not in run.output
    assert not run.save_folder.exists() or not list(run.save_folder.glob("ep*"))


def test_a_finished_run_is_pushed_by_hand_and_again_after_a_break(run: HubRun, hub: HubDouble) -> None:
    assert run.train("max_duration=4ba", repo=None) == 0, run.output
    assert not hub.repos
    push = [sys.executable, "recipes/push.py", str(run.save_folder), REPO]
    hub.faults.append(Fault(f"POST /api/models/{REPO}/commit", 403))
    assert run.run(push) == 2
    assert "may not write" in run.errors[0]
    sent = dict(hub.uploaded_blobs)
    assert sent
    assert run.run(push) == 0, run.output
    assert dict(hub.uploaded_blobs) == sent, "what the Hub has is not sent again"
    assert run.titles() == ["smoke: batch 4"]
    run.forget()
    assert run.train("max_duration=6ba", repo=REPO) == 0, run.output
    assert "after batch 4" in run.output
    missing = [sys.executable, "recipes/push.py", str(run.folder / "nowhere"), REPO]
    assert run.run(missing) == 2
    assert "no such folder" in run.errors[0]


@pytest.mark.dist
@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp2 sharded"])
def test_two_ranks_upload_once_and_resume_from_the_hub(run: HubRun, sharded: bool) -> None:
    settings = ["parallelism_config.fsdp.state_dict_type=sharded"] if sharded else []
    assert run.train("max_duration=4ba", *settings, ranks=2) == 0, run.output
    assert run.titles() == ["smoke: batch 2", "smoke: batch 4"]
    assert (run.save_folder / ("ep0-ba4" if sharded else "ep0-ba4-rank0.pt")).is_dir() == sharded
    run.forget()
    assert run.train(*settings, ranks=2) == 0, run.output
    assert run.titles()[-1] == "smoke: batch 7"
    audit = subprocess.run(
        [sys.executable, "recipes/audit.py", str(run.save_folder), str(run.mds)], cwd=ROOT, check=False
    )
    assert audit.returncode == 0
