"""A newer start of the run begins while this one saves: from then on this one changes nothing in the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import smoke_config
from theworld.checkpoint import saver
from theworld.lease import FOLDER, Process, Superseded, begin
from theworld.train.run import train

NEWER = Process("node-9", None, 0, None, 1, None)


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
    config = smoke_config(
        raw_sample,
        mds_sample,
        f"save_folder={run}",
        f"train_loader.dataset.local={tmp_path / 'cache'}",
        "train_loader.num_workers=0",
        "save_interval=1ba",
        "save_num_checkpoints_to_keep=1",
    )
    with pytest.raises(Superseded, match=r"a newer start of the run, attempt 99 \(node-9, process 1\)"):
        train(config)
    assert made == list(STEPS)[: list(STEPS).index(after) + 1]
    assert len(list(run.glob("ep*.pt"))) == made.count("put_in_place")
