"""Uploads beside training: faults of the Hub, the queue of one, the bound at the end."""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_double import Fault, HubDouble
from hub_run import REPO
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from tests.helpers.terminal import seen
from theworld.errors import UserError
from theworld.hub import access, upload
from theworld.hub.access import explain, is_final
from theworld.hub.export import Snapshot, export
from theworld.hub.upload import CommitTimes, Uploader, send, watched
from theworld.progress import BytesProgress
from theworld.uploaded import read_uploads

Client = Callable[[], HfApi]


@pytest.fixture(scope="module")
def folder(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is uploaded of the run."""
    out = tmp_path_factory.mktemp("export") / "out"
    snapshot = Snapshot.take(finished_run, finished_run / "ep0-ba4-rank0.pt", out.parent / "snapshot")
    export(snapshot, out, REPO)
    return out


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pause is two seconds otherwise; nothing else differs."""
    monkeypatch.setattr(upload, "FIRST_PAUSE", 0.05)


def sent(client: HfApi, folder: Path, scratch: Path) -> str:
    return send(client, folder, REPO, 4, "smoke", CommitTimes(scratch / "commits.txt"), threading.Event())


@pytest.mark.parametrize(
    "fault",
    [
        Fault(f"POST /api/models/{REPO}/commit", 429, {"Retry-After": "1"}),
        Fault(f"POST /api/models/{REPO}/preupload", 503, times=2),
        Fault(f"POST /api/models/{REPO}/commit", 500, times=2),
        Fault(f"POST /{REPO}.git/info/lfs", action="drop", times=2),
        Fault("PUT ", action="drop"),
        Fault(f"POST /api/models/{REPO}/commit", action="lose"),
        Fault("POST /api/validate-yaml", 502, body=b"<html>"),
    ],
    ids=["429", "503", "500", "dropped", "dropped in the content", "answer lost", "gateway's page"],
)
def test_faults_that_pass_cost_time_only(
    hub: HubDouble, client: Client, folder: Path, tmp_path: Path, fault: Fault
) -> None:
    hub.add_repo(REPO)
    hub.faults.append(fault)
    begun = time.monotonic()
    sent(client(), folder, tmp_path)
    if fault.headers:
        assert time.monotonic() - begun >= 1
    assert not hub.faults
    files = hub.repos[REPO].head.files
    assert {name: files[name] for name in files if name != ".gitattributes"} == {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    # Content that had arrived before the fault is not sent again.
    assert set(hub.uploaded_blobs.values()) == {1}


@pytest.mark.parametrize(("status", "says"), [(401, "set HF_TOKEN"), (403, "may not write"), (404, "no repo")])
def test_refusals_are_final_at_once(
    hub: HubDouble, client: Client, folder: Path, tmp_path: Path, status: int, says: str
) -> None:
    hub.add_repo(REPO)
    hub.faults.append(Fault(f"POST /api/models/{REPO}/preupload", status, times=9))
    with pytest.raises(HfHubHTTPError) as caught:
        sent(client(), folder, tmp_path)
    assert is_final(caught.value)
    assert says in explain(caught.value, REPO)
    assert sum("preupload" in line for line in hub.requests) == 1


def test_files_of_an_earlier_upload_go_in_the_same_commit(
    hub: HubDouble, client: Client, folder: Path, tmp_path: Path
) -> None:
    hub.add_repo(REPO)
    old = {"model-00001-of-00002.safetensors": b"old", "resume/ledger/rank7.jsonl": b"old", "notes.md": b"the user's"}
    hub.add_commit(REPO, "before", old)
    sent(client(), folder, tmp_path)
    files = hub.repos[REPO].head.files
    assert not old.keys() & files.keys() - {"notes.md"}
    assert files["notes.md"] == b"the user's"
    assert len(hub.repos[REPO].commits) == 3


def uploader_on(finished_run: Path, tmp_path: Path, client: Client) -> Uploader:
    """An uploader with a save folder of its own."""
    import shutil

    save_folder = tmp_path / "run"
    shutil.copytree(finished_run, save_folder, symlinks=True)
    uploader = Uploader(save_folder, REPO, "smoke", client)
    uploader.start()
    return uploader


def stalled_uploader(hub: HubDouble, finished_run: Path, tmp_path: Path, client: Client) -> tuple[Uploader, Fault]:
    """One whose first commit stands still until the fault is released."""
    hub.add_repo(REPO)
    stall = Fault(f"POST /api/models/{REPO}/commit", action="stall")
    hub.faults.append(stall)
    return uploader_on(finished_run, tmp_path, client), stall


def checkpoint(uploader: Uploader, batch: int) -> Path:
    """A checkpoint of that batch: links to one that is there."""
    path = uploader.save_folder / f"ep0-ba{batch}-rank0.pt"
    if not path.exists():
        path.hardlink_to(uploader.save_folder / "ep0-ba4-rank0.pt")
    return path


def test_the_newest_waits_and_the_one_between_is_skipped(
    hub: HubDouble, client: Client, finished_run: Path, tmp_path: Path
) -> None:
    uploader, stall = stalled_uploader(hub, finished_run, tmp_path, client)
    uploader.add(checkpoint(uploader, 2))
    assert stall.reached.wait(30)
    # Adding does not wait for the network: that stands still until all have been added.
    for batch in (4, 6, 8):
        uploader.add(checkpoint(uploader, batch))
        # The trainer removes old ones meanwhile.
        checkpoint(uploader, batch).unlink() if batch != 4 else None
    stall.release.set()
    assert uploader.finish(60)
    assert [commit.title for commit in hub.repos[REPO].commits[1:]] == ["smoke: batch 2", "smoke: batch 8"]
    assert uploader.uploaded == 8
    known = read_uploads(uploader.save_folder)
    assert known.commits == {2: hub.repos[REPO].commits[1].oid, 8: hub.repos[REPO].commits[2].oid}
    assert sorted(path.name for path in uploader.work.iterdir()) == ["commits.txt", "uploaded.json"]


def test_the_end_waits_no_longer_than_it_may(
    hub: HubDouble, client: Client, finished_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uploader, stall = stalled_uploader(hub, finished_run, tmp_path, client)
    uploader.add(checkpoint(uploader, 4))
    assert stall.reached.wait(30)
    begun = time.monotonic()
    assert not uploader.finish(1.0)
    assert 0.9 < time.monotonic() - begun < 10
    assert "the next start of the run does it" in caplog.text


def test_what_is_sent_is_counted_and_told_in_a_log(
    hub: HubDouble, client: Client, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hub.add_repo(REPO)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    progress, before = BytesProgress(size, "upload of batch 4", line_every=0.0), access.sent.total
    with watched(progress):
        sent(client(), folder, tmp_path)
    large = [len(hub.blobs[name]) for name in hub.uploaded_blobs]
    assert access.sent.total - before == sum(large) > size / 2
    (line,) = (line for line in caplog.messages[-1:] if line.startswith("upload of batch 4: "))
    assert f"{size / 1e6:,.0f} of {size / 1e6:,.0f} MB, " in line
    for part in ("MB/s", "min left"):
        assert part in line


def test_the_wait_at_the_end_has_a_bar_and_the_training_before_has_none(
    hub: HubDouble, client: Client, finished_run: Path, tmp_path: Path
) -> None:
    uploader, stall = stalled_uploader(hub, finished_run, tmp_path, client)
    beside, at_the_end = [], []
    with seen(beside):
        uploader.add(checkpoint(uploader, 4))
        assert stall.reached.wait(30)
    with seen(at_the_end):
        assert not uploader.finish(1.0)
        stall.release.set()
        wait_until_idle(uploader)
    assert "upload" not in beside[0]
    assert re.search(r"upload of batch 4: 100%.* \d+k/\d+k \[.*B/s", at_the_end[0])


def test_a_token_that_expires_is_one_line_and_a_new_one_goes_on(
    hub: HubDouble, client: Client, finished_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add_repo(REPO)
    uploader = uploader_on(finished_run, tmp_path, client)
    tokens = dict(hub.tokens)
    hub.tokens.clear()
    for batch in (2, 4):
        uploader.add(checkpoint(uploader, batch))
        wait_until_idle(uploader)
    assert caplog.text.count("does not accept the token (401)") == 1
    assert not any(token in caplog.text for token in tokens)
    hub.tokens.update(tokens)
    uploader.add(checkpoint(uploader, 6))
    assert uploader.finish(60)
    assert hub.repos[REPO].head.title == "smoke: batch 6"


def wait_until_idle(uploader: Uploader) -> None:
    with uploader._change:
        assert uploader._change.wait_for(lambda: not uploader._busy and uploader._waiting is None, 30)


def test_no_more_commits_than_the_hub_allows(tmp_path: Path) -> None:
    times = CommitTimes(tmp_path / "commits.txt")
    now = time.time()
    assert times.pause() == 0
    (tmp_path / "commits.txt").write_text("\n".join(str(now - 3000 + place) for place in range(119)))
    assert times.pause() == 0
    times.note()
    assert 500 < times.pause() <= 600


@pytest.mark.parametrize("looks", [0, 1])
def test_a_start_that_was_superseded_sends_nothing(
    hub: HubDouble, client: Client, finished_run: Path, tmp_path: Path, looks: int
) -> None:
    """It looks when it takes a checkpoint up, and again when that is ready to go."""
    hub.add_repo(REPO)
    run = Path(shutil.copytree(finished_run, tmp_path / "run", symlinks=True))
    seen: list[bool] = []

    def may_send() -> None:
        seen.append(len(seen) >= looks)
        if seen[-1]:
            raise UserError("a newer start of the run goes on")

    uploader = Uploader(run, REPO, "smoke", client, may_send)
    uploader.start()
    uploader.add(run / "ep0-ba4-rank0.pt")
    assert uploader.finish(60)
    assert seen == [*[False] * looks, True]
    assert uploader.fault == "a newer start of the run goes on"
    assert not [line for line in hub.requests if line.startswith("POST")]
