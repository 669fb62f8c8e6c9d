"""A newer start of the run begins while this one saves: from then on this one changes nothing in the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from composer.utils import checkpoint as composers

from tests.conftest import smoke_config
from theworld.checkpoint import saver
from theworld.config.schema import Config
from theworld.lease import FOLDER, Process, Superseded, begin
from theworld.train.run import train

NEWER = Process("node-9", None, 0, None, 1, None)


def saving_each_batch(raw_sample: Path, mds_sample: Path, folder: Path) -> Config:
    """A run in ``folder / "run"`` that keeps one checkpoint."""
    return smoke_config(
        raw_sample,
        mds_sample,
        f"save_folder={folder / 'run'}",
        f"train_loader.dataset.local={folder / 'cache'}",
        "train_loader.num_workers=0",
        "save_interval=1ba",
        "save_num_checkpoints_to_keep=1",
    )


@pytest.mark.slow
def test_a_half_written_checkpoint_that_the_newer_start_clears_away_is_no_fault(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Found by the random events: a start was stopped while it wrote, and Composer missed the file afterwards."""
    run = tmp_path / "run"
    write = composers._write_checkpoint_file

    def cleared_while_written(state: dict[str, Any], path: str) -> None:
        write(state, path)
        assert begin(run / FOLDER, 99, NEWER)
        saver.clear_half_saves(run)

    monkeypatch.setattr(composers, "_write_checkpoint_file", cleared_while_written)
    config = saving_each_batch(raw_sample, mds_sample, tmp_path)
    with pytest.raises(Superseded, match="attempt 99") as raised:
        train(config)
    assert isinstance(raised.value.__cause__, AssertionError), "Composer's own word for a file that is not there"
    assert list(run.glob("ep*.pt")) == []
    assert not [name for name in ("failed_ranks", "ends.jsonl") if (run / name).exists()]


STEPS = {"save_checkpoint": saver, "put_in_place": saver, "_drop_old": saver.WholeCheckpointSaver}
"""What a save does, in this order."""


@pytest.mark.slow
@pytest.mark.parametrize("after", STEPS)
def test_no_checkpoint_is_written_named_or_removed(
    after: str, raw_sample: Path, mds_sample: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    run = tmp_path / "run"
    made: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        original = getattr(STEPS[name], name)

        def call(*arguments: Any, **settings: Any) -> Any:
            made.append(name)
            result = original(*arguments, **settings)
            if name == after:
                assert begin(run / FOLDER, 99, NEWER)
            return result

        return call

    for name, owner in STEPS.items():
        monkeypatch.setattr(owner, name, noting(name))
    config = saving_each_batch(raw_sample, mds_sample, tmp_path)
    with pytest.raises(Superseded, match=r"a newer start of the run, attempt 99 \(node-9, process 1\)"):
        train(config)
    assert made == list(STEPS)[: list(STEPS).index(after) + 1]
    assert len(list(run.glob("ep*.pt"))) == made.count("put_in_place")
