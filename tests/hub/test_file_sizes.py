"""Files of a repo that are too large for their kind, or for the disk: one line, and they are not fetched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_double import HubDouble
from hub_run import REPO
from huggingface_hub import HfApi

from theworld.config.hub_url import Place
from theworld.errors import UserError
from theworld.file_limits import LIMITS, too_large
from theworld.hub import resume
from theworld.hub.plain_state import LONGEST_LINE, check_lines
from theworld.hub.resume import fetch_checkpoint
from theworld.model import base

Client = Callable[[], HfApi]
STATE = "resume/state.json"


def fetched(hub: HubDouble) -> list[str]:
    return [line for line in hub.requests if "/resolve/" in line and not line.startswith("HEAD")]


def refused(client: Client, folder: Path) -> str:
    with pytest.raises(UserError) as error:
        fetch_checkpoint(Place(REPO), folder, False, False, client())
    assert "\n" not in str(error.value)
    return str(error.value)


def description(**files: int) -> bytes:
    listed = {name: {"bytes": size, "sha256": "0" * 64} for name, size in files.items()}
    content = {"version": 1, "checkpoint": "ep0-ba2-rank0.pt", "files": listed, "weights": [], "state": {}}
    return json.dumps(content).encode()


def test_a_description_of_many_megabytes_is_not_fetched(hub: HubDouble, client: Client, tmp_path: Path) -> None:
    """Its content would be: 128 MB of brackets are ten gigabytes of lists."""
    hub.add_repo(REPO)
    hub.add_commit(REPO, "bomb", {STATE: b"[" * (LIMITS[".json"] + 1)})
    assert "resume/state.json has 134.2 MB, and no file of this kind has more than 134.2 MB" in refused(
        client, tmp_path
    )
    assert not fetched(hub)


def test_a_file_of_another_size_than_written_down_is_not_fetched(
    hub: HubDouble, client: Client, tmp_path: Path
) -> None:
    hub.add_repo(REPO)
    files = {STATE: description(**{"model.safetensors": 10}), "model.safetensors": b"x" * 5_000_000}
    hub.add_commit(REPO, "other", files)
    assert "model.safetensors is not the file that was uploaded" in refused(client, tmp_path)
    assert [line for line in fetched(hub) if "model.safetensors" in line] == []


def test_what_does_not_fit_the_disk_is_not_fetched(
    hub: HubDouble, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_repo(REPO)
    files = {STATE: description(**{"model.safetensors": 5_000_000}), "model.safetensors": b"x" * 5_000_000}
    hub.add_commit(REPO, "large", files)
    usage: Any = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(resume.shutil, "disk_usage", lambda path: usage)
    assert "the checkpoint on the Hub takes 5.0 MB, and 1.0 MB are free" in refused(client, tmp_path)
    assert [line for line in fetched(hub) if "model.safetensors" in line] == []


def test_a_line_without_end_is_not_read(tmp_path: Path) -> None:
    ledger = tmp_path / "rank0.jsonl"
    ledger.write_bytes(b'{"launch": 1, "batch": 0}\n' + b" " * (LONGEST_LINE + 1))
    with pytest.raises(ValueError, match=r"a line of rank0\.jsonl has more than"):
        check_lines(ledger)
    ledger.write_bytes(b'{"launch": 1, "batch": 0}\n{"half')
    check_lines(ledger)


def test_a_model_with_a_huge_configuration_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse, so that it takes no room here."""
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(10 << 30)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(UserError, match=r"model\.gemma: o/n: tokenizer\.json has 10,737\.4 MB, and no file"):
        base.download("model.gemma", "o/n", None, ["*.json"])


def test_weights_have_no_limit_of_their_own() -> None:
    assert too_large("model-00001-of-00002.safetensors", 1 << 40) is None
    assert too_large("resume/ledger/rank0.jsonl", 1 << 31) is not None
