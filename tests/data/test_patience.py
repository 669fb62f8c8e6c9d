"""What cannot be reached now is waited for, then left for later with exit code 75; nothing is lost or read twice."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.loader import ids_of, open_data, read_pass, smoke_on
from tests.slurm.cluster import wait_until
from theworld import patience
from theworld.data.cache import lookahead
from theworld.data.cache.lookahead import ShardLookahead
from theworld.errors import EXIT_RUN_AGAIN, NotNow, Stopped, UserError
from theworld.model.build import load_processor
from theworld.patience import patiently
from theworld.pulse import WAKE, pulse
from theworld.train.data import TrainData, build_data


@pytest.fixture
def remote(mds_sample: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mds_sample, tmp_path / "remote"))


def open_remote(remote: Path, tmp_path: Path, seconds: float, workers: int = 0) -> TrainData:
    settings = (f"train_loader.dataset.patience={seconds}", f"train_loader.num_workers={workers}")
    return open_data(smoke_on(remote, tmp_path / "cache", *settings))


def test_tried_again_with_growing_pauses_until_it_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(patience, "SAY_EVERY", 0.1)
    attempts = []

    def attempt() -> str:
        attempts.append(len(attempts))
        if len(attempts) < 5:
            raise NotNow("no answer")
        return "there"

    assert patiently(attempt, "shard 3", 60.0) == "there"
    said = [record.message for record in caplog.records]
    assert said[0] == "waiting for shard 3 since 0 s (no answer)"
    assert 2 <= len(said) <= 4


def test_a_stop_ends_the_wait_of_the_main_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog sends this signal to it when the run is to stop."""

    def away() -> None:
        assert pulse.interruptible
        signal.raise_signal(WAKE)
        raise NotNow("away")

    before = signal.signal(WAKE, pulse.interrupt)
    try:
        with pulse.at("the loader", interruptible=True):
            with pytest.raises(Stopped, match="stopped while waiting for the store"):
                patiently(away, "the store", 60)
            assert pulse.interruptible, "the wait around it goes on"
        assert not pulse.interruptible
        signal.raise_signal(WAKE)
    finally:
        signal.signal(WAKE, before)


def test_after_so_long_it_is_left_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.05)

    def attempt() -> None:
        raise NotNow("no answer")

    with pytest.raises(NotNow, match="no answer; waited for 0 s") as left:
        patiently(attempt, "shard 3", 0.3)
    assert left.value.exit_code == EXIT_RUN_AGAIN

    def wrong() -> None:
        raise UserError("wrong")

    with pytest.raises(UserError, match=r"^wrong$"):
        patiently(wrong, "shard 3", 60.0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_remote_that_is_gone_for_a_while(
    remote: Path, tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = open_remote(remote, tmp_path, 60, workers)
    away = remote.rename(tmp_path / "away")
    with ThreadPoolExecutor(1) as reader:
        seen = reader.submit(read_pass, data)
        if workers == 0:  # else the line is a worker's
            wait_until(lambda: "waiting for shard gen-00000" in caplog.text, "the loader waits")
        away.rename(remote)
        assert len(set(seen.result())) == len(seen.result()) == 26
    data.close()


def test_a_shard_that_is_half_visible_for_a_while(
    remote: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = sorted(remote.glob("gen-*/*.mds"))[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 255]))
    data = open_remote(remote, tmp_path, 60)
    with ThreadPoolExecutor(1) as reader:
        seen = reader.submit(read_pass, data)
        wait_until(lambda: "shard.00000.mds: damaged where it lies" in caplog.text, "the loader waits")
        shard.write_bytes(whole)
        assert len(set(seen.result())) == 26
    data.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_remote_that_stays_away_is_one_line_and_exit_code_75(remote: Path, tmp_path: Path, workers: int) -> None:
    data = open_remote(remote, tmp_path, 0, workers)
    remote.rename(tmp_path / "away")
    with pytest.raises(NotNow, match="cannot be fetched whole into") as left:
        read_pass(data)
    assert left.value.exit_code == EXIT_RUN_AGAIN
    assert "\n" not in str(left.value)
    data.close()


def test_growth_cannot_be_looked_for_while_the_remote_is_away(
    remote: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While known samples are left that is no reason to stop; when they are used up it is one."""
    data = open_remote(remote, tmp_path, 0)
    batches: list[list[str]] = []

    def read() -> None:
        for number, batch in enumerate(data.spec.dataloader):
            batches.append(ids_of(batch))
            if number == 1:
                for shard in range(len(data.dataset.shards.shards)):
                    data.dataset.fetch_shard(shard)
                remote.rename(tmp_path / "away")
                data.dataset.growth_wanted = True

    with caplog.at_level(logging.WARNING), pytest.raises(NotNow, match=r"no index\.json"):
        read()
    assert "whether there are new samples is looked for at the next save" in caplog.text
    assert [len(batch) for batch in batches] == [4] * 6
    data.close()


def test_a_data_set_that_was_there_before_is_out_of_reach_and_not_wrong(remote: Path, tmp_path: Path) -> None:
    (remote / "index.json").unlink()
    with pytest.raises(UserError, match=r"no index\.json") as wrong:
        open_remote(remote, tmp_path, 0)
    assert not isinstance(wrong.value, NotNow)
    config = smoke_on(remote, tmp_path / "cache", "train_loader.dataset.patience=0")
    with pytest.raises(NotNow, match=r"no index\.json"):
        build_data(config.train_loader, load_processor(config.model), 4, 17, growing=True, known=True)


def test_a_store_that_takes_the_question_and_is_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "SAY_EVERY", 0.05)

    def answer_at_last() -> int:
        wait_until(lambda: caplog.text.count("waiting for shard 3 since 0 s (no answer)") >= 2, "it is said")
        return 5

    assert patiently(answer_at_last, "shard 3", 0.0) == 5


def test_a_fetch_that_never_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookahead, "LONGER", 0.2)
    silent = threading.Event()

    def fetch(shard: int) -> None:
        silent.wait()

    with ShardLookahead(fetch, patience=0.1) as shards:
        shards.request([3])
        with pytest.raises(NotNow, match="shard 3: no answer"):
            shards.wait(3)
        silent.set()
