"""A quota that is used up while the ranks write their parts of a sharded checkpoint, under the real launcher."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from launching import Run, ranks_of

from tests.helpers.launcher import ended
from theworld.checkpoint.on_disk import SAVING, is_whole, list_checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.dist]

SETTINGS = [
    "global_train_batch_size=4",
    "device_train_microbatch_size=1",
    "save_interval=3ba",
    "parallelism_config.fsdp.state_dict_type=sharded",
    "train_loader.num_workers=0",
]


def test_a_rank_that_cannot_write_its_part_ends_all_with_one_line(many_samples: Path, folder: Path) -> None:
    run = Run(many_samples, folder, SETTINGS)
    run.arrive(30)
    trainer = run.start(2, "max_duration=100ep")
    assert run.wait_for_batches(trainer, 1), run.output
    # The size that a file may have stands for a quota; the second rank's, so that the first one's part is written.
    resource.prlimit(ranks_of(trainer)[1].pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
    assert ended(trainer) == 1, run.output
    lines = [line for line in run.output.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, run.output
    assert "is not written: rank 1: " in lines[0]
    assert "the write broke off: a checkpoint takes" in lines[0]
    assert "training goes on, and ends if the next save cannot be written either" in run.output
    assert "Traceback" not in run.output
    assert not (run.save_folder / SAVING).exists()
    assert all(is_whole(one.path) for one in list_checkpoints(run.save_folder))
