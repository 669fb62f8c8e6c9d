"""A checkpoint back from the Hub: whole, the newest, and nothing in it that runs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hub_double import Fault, HubDouble
from hub_run import REPO
from huggingface_hub import HfApi, constants

from tests.conftest import smoke_config
from theworld import patience
from theworld.config.hub_url import Place
from theworld.errors import EXIT_BAD_INPUT, EXIT_RUN_AGAIN, NotNow, UserError
from theworld.hub import resume as hub_resume
from theworld.hub.export import Snapshot, export
from theworld.hub.resume import fetch_checkpoint
from theworld.hub.state_codec import same
from theworld.train.hub_sync import fetch_from_hub

Client = Callable[[], HfApi]
STATE = "resume/state.json"


@pytest.fixture(scope="module")
def uploads(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, bytes]]:
    """The files of two uploads of one run, by batch."""
    found = {}
    for batch in (2, 4):
        folder = tmp_path_factory.mktemp(f"batch{batch}")
        snapshot = Snapshot.take(finished_run, finished_run / f"ep0-ba{batch}-rank0.pt", folder / "snapshot")
        export(snapshot, folder / "out", REPO)
        files = [path for path in (folder / "out").rglob("*") if path.is_file()]
        found[batch] = {path.relative_to(folder / "out").as_posix(): path.read_bytes() for path in files}
    return found


def fetched(client: Client, folder: Path, revision: str | None = None, may_miss: bool = False) -> Path | None:
    (folder / "run").mkdir(exist_ok=True)
    return fetch_checkpoint(Place(REPO, revision), folder / "run", False, may_miss, client())


def test_nothing_of_an_upload_is_a_pickle(uploads: dict[int, dict[str, bytes]]) -> None:
    for name, content in uploads[4].items():
        assert name.endswith((".json", ".jsonl", ".safetensors", ".md", ".png", ".jinja")), name
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever pickle says of what is none
            pickle.loads(content)


def test_the_checkpoint_comes_back_to_the_bit_with_its_ledger(
    hub: HubDouble, client: Client, uploads: dict[int, dict[str, bytes]], finished_run: Path, tmp_path: Path
) -> None:
    hub.add_repo(REPO)
    for batch, files in uploads.items():
        hub.add_commit(REPO, f"batch {batch}", files)
    path = fetched(client, tmp_path)
    assert path is not None
    assert path == tmp_path / "run" / "ep0-ba4-rank0.pt"
    theirs, ours = (torch.load(one, weights_only=False) for one in (path, finished_run / path.name))
    # The weights are read from files of their own and come last.
    model, own_model = theirs["state"].pop("model"), ours["state"].pop("model")
    assert same(theirs, ours)
    assert model.keys() == own_model.keys()
    assert all(torch.equal(model[name], own_model[name]) for name in model)
    for name in ("launches.jsonl", "ledger/rank0.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (finished_run / name).read_bytes()


def test_a_revision_gives_exactly_that_one(
    hub: HubDouble, client: Client, uploads: dict[int, dict[str, bytes]], tmp_path: Path
) -> None:
    hub.add_repo(REPO)
    first = hub.add_commit(REPO, "batch 2", uploads[2])
    hub.add_commit(REPO, "batch 4", uploads[4])
    path = fetched(client, tmp_path, revision=first.oid)
    assert path is not None
    assert path.name == "ep0-ba2-rank0.pt"
    with pytest.raises(UserError, match="no such revision"):
        fetched(client, tmp_path, revision="v9")


def changed(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    content = bytearray(files[name])
    content[len(content) // 2] ^= 1
    return {**files, name: bytes(content)}


def without(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {key: value for key, value in files.items() if key != name}


def with_state(uploaded: dict[str, bytes], /, **changes: object) -> dict[str, bytes]:
    return {**uploaded, STATE: json.dumps({**json.loads(uploaded[STATE]), **changes}).encode()}


DAMAGES: dict[str, Callable[[dict[str, bytes]], dict[str, bytes]]] = {
    "weights changed": lambda files: changed(files, "model.safetensors"),
    "tensors changed": lambda files: changed(files, "resume/tensors.safetensors"),
    "ledger cut": lambda files: {**files, "resume/ledger/rank0.jsonl": files["resume/ledger/rank0.jsonl"][:-9]},
    "weights missing": lambda files: without(files, "model.safetensors"),
    "state cut": lambda files: {**files, STATE: files[STATE][:-5]},
    "state missing": lambda files: without(files, STATE),
    "another version": lambda files: with_state(files, version=99),
    "a weight too many": lambda files: with_state(files, weights=["model.other"]),
    "state of something else": lambda files: with_state(files, state=[]),
    "a path": lambda files: with_state(files, checkpoint="../../ep0-ba4-rank0.pt"),
    "a file outside": lambda files: with_state(
        files, files={"resume/ledger/../../../x.jsonl": {"bytes": 1, "sha256": ""}}
    ),
    "a pickle": lambda files: with_state(files, files={"evil.pt": {"bytes": 1, "sha256": ""}}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_upload_is_passed_over(
    hub: HubDouble, client: Client, uploads: dict[int, dict[str, bytes]], tmp_path: Path, damage: str
) -> None:
    hub.add_repo(REPO)
    hub.add_commit(REPO, "batch 2", uploads[2])
    newest = hub.add_commit(REPO, "batch 4", DAMAGES[damage](uploads[4]))
    path = fetched(client, tmp_path)
    assert path is not None
    assert path.name == "ep0-ba2-rank0.pt"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["run"]
    with pytest.raises(UserError) as caught:
        fetched(client, tmp_path, revision=newest.oid)
    assert "\n" not in str(caught.value)


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_repo_of_pickles_is_refused_with_the_reason(hub: HubDouble, client: Client, tmp_path: Path) -> None:
    hub.add_repo(REPO)
    hub.add_commit(REPO, "mine", {"ep0-ba5-rank0.pt": pickle.dumps(Evil(tmp_path / "ran"))})
    with pytest.raises(UserError, match=r"ep0-ba5-rank0\.pt, a pickle that could run code"):
        fetched(client, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_an_empty_or_absent_repo_is_a_fresh_start_only_where_one_may_be(
    hub: HubDouble, client: Client, tmp_path: Path
) -> None:
    assert fetched(client, tmp_path, may_miss=True) is None
    with pytest.raises(UserError, match="no repo"):
        fetched(client, tmp_path)
    hub.add_repo(REPO)
    assert fetched(client, tmp_path, may_miss=True) is None
    with pytest.raises(UserError, match=r"no resume/state\.json"):
        fetched(client, tmp_path)


def test_damage_or_silence_never_begins_a_run_anew(
    hub: HubDouble, client: Client, uploads: dict[int, dict[str, bytes]], tmp_path: Path
) -> None:
    hub.add_repo(REPO)
    hub.add_commit(REPO, "batch 4", changed(uploads[4], "model.safetensors"))
    with pytest.raises(UserError, match="not the file that was uploaded"):
        fetched(client, tmp_path, may_miss=True)
    hub.faults.append(Fault(f"GET /api/models/{REPO}/commits", 503, times=99))
    with pytest.raises(NotNow, match="no new run is begun"):
        fetched(client, tmp_path, may_miss=True)


@pytest.mark.slow
def test_a_hub_that_falls_silent_in_the_middle_is_no_damage(
    hub: HubDouble, client: Client, uploads: dict[int, dict[str, bytes]], tmp_path: Path
) -> None:
    """The client itself tries for 23 seconds, and then says much the same as of a file that is not there."""
    hub.add_repo(REPO)
    hub.add_commit(REPO, "batch 4", uploads[4])
    silent = Fault(f"HEAD /{REPO}/resolve/[^/]+/resume/tensors", 503, times=99)
    hub.faults.append(silent)
    with pytest.raises(NotNow, match="the Hub answers 503"):
        fetched(client, tmp_path, may_miss=True)
    before = [line for line in hub.requests if line.startswith("GET") and "resolve" in line]
    assert any("model.safetensors" in line for line in before)
    hub.faults.remove(silent)
    hub.requests.clear()
    path = fetched(client, tmp_path, may_miss=True)
    assert path is not None
    assert not any("model.safetensors" in line for line in hub.requests if line.startswith("GET")), "fetched twice"
    assert not (tmp_path / "run" / ".hub" / "download").exists()


@pytest.mark.parametrize("key", ["load_path=hf://" + REPO, "hub.repo_id=" + REPO])
def test_a_start_waits_for_a_hub_that_does_not_answer_and_leaves_with_75(
    hub: HubDouble,
    client: Client,
    uploads: dict[int, dict[str, bytes]],
    raw_sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
) -> None:
    monkeypatch.setattr(hub_resume, "quiet_client", client)
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.05)
    hub.add_repo(REPO)
    hub.add_commit(REPO, "batch 4", uploads[4])
    config = smoke_config(raw_sample, tmp_path, key, "train_loader.dataset.patience=0.3")
    down = Fault(f"GET /api/models/{REPO}/commits", 503, times=9999)
    hub.faults.append(down)
    with pytest.raises(NotNow, match=rf"hf://{REPO}: the Hub answers 503: .*; waited for \d+ s") as left:
        fetch_from_hub(config, tmp_path / "run")
    assert left.value.exit_code == EXIT_RUN_AGAIN
    hub.faults.remove(down)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub_resume, "quiet_client", lambda: HfApi("http://127.0.0.1:9", token="hf_x"))
    with pytest.raises(NotNow, match="the Hub does not answer"):
        fetch_from_hub(config, tmp_path / "run")


def test_a_refusal_is_bad_input_at_once(hub: HubDouble, client: Client, tmp_path: Path) -> None:
    hub.add_repo(REPO, private=True)
    with pytest.raises(UserError, match="no repo") as absent:
        fetch_checkpoint(Place("someone/elsewhere"), tmp_path, False, may_miss=False, client=client())
    assert absent.value.exit_code == EXIT_BAD_INPUT
    hub.faults.append(Fault(f"GET /api/models/{REPO}/commits", 401, times=9))
    with pytest.raises(UserError, match="401") as refused:
        fetch_checkpoint(Place(REPO), tmp_path, False, may_miss=False, client=client())
    assert refused.value.exit_code == EXIT_BAD_INPUT
