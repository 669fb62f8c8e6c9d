"""A run that is asked to stop while its start waits for something that is out of reach."""

from __future__ import annotations

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import smoke_config
from tests.slurm.cluster import wait_until
from theworld.config.schema import Config
from theworld.errors import EXIT_DONE, EXIT_REQUEUE
from theworld.signals import StopRequest
from theworld.train.run import train


@pytest.mark.slow
def test_it_leaves_at_once_long_before_its_patience_ends(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mds = Path(shutil.copytree(mds_sample, tmp_path / "mds"))

    def config(until: str) -> Config:
        return smoke_config(
            raw_sample,
            mds,
            f"save_folder={tmp_path / 'run'}",
            f"train_loader.dataset.local={tmp_path / 'cache'}",
            "train_loader.dataset.patience=3000",
            "train_loader.num_workers=0",
            "model.freeze.language=true",
            f"max_duration={until}",
        )

    def ask_to_stop() -> None:
        wait_until(lambda: f"waiting for {mds} since" in caplog.text, "the start waits")
        os.kill(os.getpid(), signal.SIGTERM)

    assert train(config("1ba")) == EXIT_DONE
    mds.rename(tmp_path / "away")
    stop = StopRequest(["SIGTERM"])
    before = signal.getsignal(signal.SIGTERM)
    stop.install()
    try:
        with ThreadPoolExecutor(1) as another, caplog.at_level("INFO"):
            asked = another.submit(ask_to_stop)
            assert train(config("2ba"), stop) == EXIT_REQUEUE
            asked.result()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert f"stopped while waiting for {mds}, before the first batch: SIGTERM" in caplog.text
    end = json.loads((tmp_path / "run" / "ends.jsonl").read_text().splitlines()[-1])
    assert end["exit_code"] == EXIT_REQUEUE
    assert not (tmp_path / "run" / "failed_ranks").exists(), "nothing has failed"
