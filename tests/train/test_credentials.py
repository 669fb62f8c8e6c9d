"""Credentials in the values of a run's configuration, its log and its error: in no file that it leaves."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import yaml

from tests.conftest import SMOKE_YAML
from theworld.commands.train import command
from theworld.train.failures_of_ranks import note_reason

WEB, BUCKET = "https://user:pa55word@host/set", "s3://AKIA123:se/cr+et=@bucket/set"
SECRETS = ("pa55word", "se/cr+et", "abc123")
TELLER = f"""
import logging

from composer.core import Callback


class Teller(Callback):
    def __init__(self, address, api_key):
        self.address = address

    def fit_start(self, state, logger):
        logging.getLogger("own").warning("reading %s", self.address)
        logger.log_hyperparameters({{"address": self.address, "more": {{"web": "{WEB}"}}}})

    def fit_end(self, state, logger):
        raise ValueError(f"{WEB} and {{self.address}} are out of reach")
"""


def test_a_failing_runs_files_and_output_hold_none(
    mds_sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of the save folder is read: event files, checkpoints and the model's among them."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    (tmp_path / "own_teller.py").write_text(TELLER, encoding="utf-8")
    run = tmp_path / "run"
    settings = [
        f"convert.json={WEB}",
        f"convert.images={BUCKET}",
        f"train_loader.dataset={{remote: {mds_sample}, local: {tmp_path / 'cache'}}}",
        f"eval_loader={{dataset: {{remote: {mds_sample}, local: {tmp_path / 'cache'}}}, num_workers: 0}}",
        *("eval_interval=1ba", "eval_subset_num_batches=1", "train_loader.num_workers=0", "max_duration=1ba"),
        f"code_paths=[{tmp_path / 'own_teller.py'}]",
        f"callbacks={{'own_teller:Teller': {{address: '{BUCKET}', api_key: abc123}}}}",
        f"save_folder={run}",
    ]
    note_reason(run, 5, "of an earlier start")
    assert command([SMOKE_YAML, *settings]) == 1
    shown = "".join(capsys.readouterr())
    assert "reading s3://<hidden>@bucket/set" in shown
    assert "error: ValueError: https://<hidden>@host/set and s3://<hidden>@bucket/set are out of reach" in shown
    assert not [line for line in shown.splitlines() if any(secret in line for secret in SECRETS)]

    files = {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert not [(name, secret) for name in files for secret in SECRETS if secret.encode() in files[name]]
    assert any(b"s3://<hidden>@bucket/set" in files[name] for name in files if "events." in name), sorted(files)
    assert yaml.safe_load(files["config.yaml"])["convert"]["json"] == "https://<hidden>@host/set"
    assert "<hidden>@host" in json.loads(files["failed_ranks/rank0.json"])["reason"]
    assert "failed_ranks/rank5.json" not in files
    assert b"<hidden>@host" in files["ends.jsonl"]
    assert "ep0-ba1-rank0.pt" in files
