"""A run in stages whose save folder is gone goes on from its repos: no stage that has ended is trained again."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_double import WRITE_TOKEN, Fault, HubDouble
from hub_run import HubRun
from huggingface_hub import HfApi

from tests.conftest import ROOT
from tests.helpers.launcher import composer
from tests.helpers.stage_stops import stops_at
from tests.helpers.tensorboard import logged
from theworld.config.load import load_config
from theworld.config.schema import Config
from theworld.config.stage_configs import stage_configs
from theworld.errors import EXIT_REQUEUE, UserError
from theworld.hub.export import Snapshot, export
from theworld.hub.finished import InRepo, look_at, note_finished_in_repo
from theworld.stage_folders import Stage, read_stages
from theworld.train.stages_from_hub import NOT_UPLOADED, stages_on_hub, tell_hub
from theworld.train.train_stages import weights_to_begin_with

YAML = str(ROOT / "yamls" / "smoke_stages.yaml")
STAGES = (
    "stages=[{name: align, max_duration: 1ep, freeze: {language: true}}, "
    "{name: full, max_duration: 1ep, freeze: {language: true, vision: false}}]"
)
REPO = "someone/staged"
ALIGN, FULL = f"{REPO}-align", f"{REPO}-full"
MARK = "resume/finished.json"


@pytest.mark.slow
@pytest.mark.dist
def test_stages_go_on_from_the_hub_on_a_new_node(
    hub: HubDouble, raw_sample: Path, mds_sample: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("staged")  # with a short name: sockets below it must not become too long
    unbroken, run = (HubRun(hub, mds_sample, folder / name, folder / "home") for name in ("whole", "one"))

    def train(one: HubRun, *settings: str) -> int:
        data = [f"convert.json={raw_sample / 'openspatial.json'}", f"convert.out={mds_sample}", STAGES]
        where = [f"save_folder={one.save_folder}", "save_interval=2ba", "train_loader.num_workers=0"]
        return one.run(composer(2, YAML, *data, *where, *settings))

    def seen() -> list[list[int]]:
        """The numbers of the starts of each stage that the folder knows of."""
        files = [run.save_folder / name / "launches.jsonl" for name in ("align", "full")]
        return [[json.loads(line)["launch"] for line in file.read_text().splitlines()] for file in files]

    assert train(unbroken) == 0, unbroken.output
    expected = logged(unbroken.save_folder / "full")
    repo = f"hub.repo_id={REPO}"
    assert train(run, repo, *stops_at("full", 0, signal.SIGKILL)) not in (0, 2, 75, EXIT_REQUEUE), run.output
    assert MARK in hub.repos[ALIGN].head.files
    run.forget()
    assert train(run, repo, *stops_at("full", 2, signal.SIGTERM)) == EXIT_REQUEUE, run.output
    assert "stage align has ended with ep1-ba4-rank0.pt, by someone/staged-align" in run.output
    assert seen() == [[1], [1]], "the first stage was not started again"
    first = logged(run.save_folder / "full")
    run.forget()
    assert train(run, repo) == 0, run.output
    assert seen() == [[1], [1, 2]]
    assert {**first, **logged(run.save_folder / "full")} == expected
    audit = [sys.executable, "recipes/audit.py", str(run.save_folder)]
    assert run.run(audit) == 0, run.output
    assert [one.checkpoint for one in read_stages(run.save_folder)] == ["ep1-ba4-rank0.pt"] * 2
    assert MARK in hub.repos[FULL].head.files


@pytest.fixture
def uploaded(
    hub: HubDouble, client: Callable[[], HfApi], finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, bytes]:
    """The files of an upload; none of them is in a repo yet."""
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    snapshot = Snapshot.take(finished_run, finished_run / "ep0-ba4-rank0.pt", tmp_path / "snapshot")
    export(snapshot, tmp_path / "out", REPO)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    return {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in files}


def put(hub: HubDouble, repo: str, files: dict[str, bytes]) -> None:
    hub.add_repo(repo)
    hub.add_commit(repo, "batch 4", files)


def runs(folder: Path, *more: str) -> list[tuple[str, Config]]:
    settings = [f"save_folder={folder / 'run'}", f"hub.repo_id={REPO}", STAGES, *more]
    return stage_configs(load_config([YAML, *settings]))


def test_a_stage_has_ended_if_its_repo_says_so_or_a_later_one_has_begun(
    hub: HubDouble, uploaded: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def known() -> list[str | None]:
        return [one.checkpoint for one in stages_on_hub(runs(tmp_path))]

    assert known() == [None, None]
    put(hub, ALIGN, uploaded)
    assert known() == [None, None], "it may have been stopped in the middle"
    assert not (tmp_path / "run").exists()
    assert stages_on_hub(runs(tmp_path, "autoresume=false")) == [Stage("align"), Stage("full")]
    hub.add_commit(ALIGN, "of another", {**uploaded, MARK: b'{"checkpoint": "ep0-ba2-rank0.pt"}'})
    assert known() == [None, None]
    note_finished_in_repo(ALIGN, "align", "ep0-ba4-rank0.pt")
    assert look_at(ALIGN, tmp_path / "look") == InRepo("ep0-ba4-rank0.pt", finished=True)
    assert known() == ["ep0-ba4-rank0.pt", None]
    assert {"ep0-ba4-rank0.pt", "ledger", "launches.jsonl", "config.yaml"} <= {
        path.name for path in (tmp_path / "run" / "align").iterdir()
    }
    del hub.repos[ALIGN]
    put(hub, FULL, uploaded)
    assert known() == [NOT_UPLOADED, None]
    assert "stage align has ended, as the next one's repo shows" in caplog.text


def test_what_lies_here_is_not_replaced_by_what_is_older(
    hub: HubDouble, uploaded: dict[str, bytes], finished_run: Path, tmp_path: Path
) -> None:
    snapshot = Snapshot.take(finished_run, finished_run / "ep0-ba2-rank0.pt", tmp_path / "older")
    export(snapshot, tmp_path / "old", REPO)
    files = [path for path in (tmp_path / "old").rglob("*") if path.is_file()]
    put(hub, ALIGN, {path.relative_to(tmp_path / "old").as_posix(): path.read_bytes() for path in files})
    put(hub, FULL, uploaded)
    shutil.copytree(finished_run, tmp_path / "run" / "align")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert [one.checkpoint for one in stages_on_hub(runs(tmp_path))] == ["ep0-ba4-rank0.pt", None]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_weights_come_from_the_hub_or_the_stage_does_not_begin(
    hub: HubDouble, uploaded: dict[str, bytes], tmp_path: Path
) -> None:
    (_, align), (_, full) = runs(tmp_path)
    last = Stage("align", "ep0-ba4-rank0.pt", 4)
    with pytest.raises(UserError, match="is gone, and someone/staged-align holds none, and stage full is to begin"):
        weights_to_begin_with(full, align, last)
    put(hub, ALIGN, uploaded)
    with pytest.raises(UserError, match=r"holds ep0-ba4-rank0\.pt, and stage full"):
        weights_to_begin_with(full, align, Stage("align", "ep0-ba6-rank0.pt", 6))
    path = tmp_path / "run" / "align" / "ep0-ba4-rank0.pt"
    assert weights_to_begin_with(full, align, last) == str(path)
    assert path.is_file()
    path.unlink()
    put(hub, FULL, uploaded)
    assert weights_to_begin_with(full, align, last) is None, "it has a checkpoint of its own to go on from"


def test_a_stage_that_the_hub_cannot_be_told_of_is_a_warning(
    hub: HubDouble, uploaded: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (_, align), _ = runs(tmp_path)
    tell_hub(align, Stage("align", "ep0-ba4-rank0.pt", 4))
    assert "stage align: its last checkpoint has not reached someone/staged-align" in caplog.text
    put(hub, ALIGN, uploaded)
    hub.faults.append(Fault(f"POST /api/models/{ALIGN}/commit", status=500, times=20))
    note_finished_in_repo(ALIGN, "align", "ep0-ba4-rank0.pt")
    assert "someone/staged-align does not know yet that stage align is finished" in caplog.text
    assert MARK not in hub.repos[ALIGN].head.files
