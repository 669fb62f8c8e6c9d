"""A loss that stays NaN ends the run, and no checkpoint of it takes the place of a good one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import smoke_config
from theworld.errors import RunFailed
from theworld.train.run import train

POISON = """
import torch
from composer.core import Callback


class Poison(Callback):
    def after_train_batch(self, state, logger):
        if int(state.timestamp.batch) >= 2:
            next(one.grad for one in state.model.parameters() if one.grad is not None).view(-1)[0] = torch.nan
"""


@pytest.mark.slow
def test_three_lost_steps_in_a_row_end_the_run(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "poison_of_a_row.py").write_text(POISON)
    config = smoke_config(
        raw_sample,
        mds_sample,
        f"save_folder={tmp_path / 'run'}",
        f"train_loader.dataset.local={tmp_path / 'cache'}",
        f"code_paths=[{tmp_path / 'poison_of_a_row.py'}]",
        "callbacks={'poison_of_a_row:Poison': {}}",
        "global_train_batch_size=4",
        "device_train_microbatch_size=2",
        "train_loader.num_workers=0",
        "save_interval=1ba",
        "save_num_checkpoints_to_keep=-1",
        "max_duration=6ba",
    )
    with pytest.raises(RunFailed, match="not finite 3 times in a row, the last time in batch 5") as failed:
        train(config)
    assert failed.value.exit_code == 1
    assert "\n" not in str(failed.value)
    assert not list((tmp_path / "run").glob("ep*-ba5-*"))
    named = [record.getMessage() for record in caplog.records if "not trained on: " in record.getMessage()]
    assert len(named) == 3
    assert all(len(line.partition("not trained on: ")[2].split()) == 4 for line in named)
