"""What a checkpoint from a stranger says is data: resuming from it runs nothing of it."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.conftest import smoke_config
from theworld.train.run import train


def test_an_algorithm_of_a_checkpoint_is_not_evaluated(
    finished_run: Path, raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    planted, ran = tmp_path / "ep0-ba4-rank0.pt", tmp_path / "ran"
    checkpoint = torch.load(finished_run / planted.name, weights_only=False)
    code = f"LowPrecisionLayerNorm.__name__ and __import__('pathlib').Path({str(ran)!r}).touch()"
    checkpoint["state"]["algorithms"] = [("LowPrecisionLayerNorm", {"repr": code})]
    torch.save(checkpoint, planted)
    config = smoke_config(
        raw_sample,
        mds_sample,
        f"save_folder={tmp_path / 'run'}",
        f"load_path={planted}",
        f"train_loader.dataset.local={tmp_path / 'cache'}",
        "global_train_batch_size=4",
        "device_train_microbatch_size=2",
        "train_loader.num_workers=0",
        "model.freeze.language=true",
        "save_interval=2ba",
        "max_duration=5ba",
    )
    assert train(config) == 0
    assert not ran.exists()
