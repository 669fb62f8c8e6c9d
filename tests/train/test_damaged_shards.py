"""A shard that is damaged for good: left for later at first, after the same at three starts one line, exit code 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import smoke_config
from theworld.errors import EXIT_BAD_INPUT, EXIT_RUN_AGAIN, DamagedShard, UserError
from theworld.train.damaged_shards import FILE, judge_damage
from theworld.train.run import train

WRONG = DamagedShard.found("s3://b/gen-00000/shard.00003.mds", "sha1 aa instead of bb")


def test_the_same_fault_at_three_starts_is_for_good(tmp_path: Path) -> None:
    of_a_rank = DamagedShard(f"rank 3: {WRONG}; waited for 600 s")
    assert judge_damage(tmp_path, 1, WRONG) is WRONG
    assert judge_damage(tmp_path, 1, WRONG) is WRONG, "two ranks of one start"
    assert judge_damage(tmp_path, 2, of_a_rank) is of_a_rank
    another = DamagedShard.found("s3://b/gen-00000/shard.00003.mds", "sha1 cc instead of bb")
    assert judge_damage(tmp_path, 3, another) is another, "it has changed: somebody is at work there"
    found = judge_damage(tmp_path, 4, WRONG)
    assert type(found) is UserError
    assert str(found).startswith("s3://b/gen-00000/shard.00003.mds: damaged where it lies, sha1 aa instead of bb; 3 ")


@pytest.mark.slow
def test_a_run_on_a_damaged_shard(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    mds = Path(shutil.copytree(mds_sample, tmp_path / "mds"))
    shard = sorted(mds.glob("gen-*/*.mds"))[-1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 255]))
    config = smoke_config(
        raw_sample,
        mds,
        f"save_folder={tmp_path / 'run'}",
        f"train_loader.dataset.local={tmp_path / 'cache'}",
        "train_loader.dataset.patience=0",
        "train_loader.dataset.shuffle=false",
        "global_train_batch_size=4",
        "device_train_microbatch_size=2",
        "train_loader.num_workers=0",
        "model.freeze.language=true",
        "save_interval=100ba",
    )
    for exit_code in (EXIT_RUN_AGAIN, EXIT_RUN_AGAIN, EXIT_BAD_INPUT):
        with pytest.raises(UserError, match=rf"{shard.name}: damaged where it lies, \w+ \w+ instead of \w+;") as left:
            train(config)
        assert left.value.exit_code == exit_code
    lines = [json.loads(line) for line in (tmp_path / "run" / FILE).read_text().splitlines()]
    assert [line["launch"] for line in lines] == [1, 2, 3]
    shard.write_bytes(whole)
    assert train(config) == 0
