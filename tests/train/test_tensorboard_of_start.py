"""TensorBoard's files: one a start, readable while it is open, evaluations included."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from composer.core import Timestamp

from tests.helpers.tensorboard import logged
from theworld.train.event_files import EventFiles


def test_one_file_whatever_is_flushed_and_evaluated(tmp_path: Path) -> None:
    logger = EventFiles(log_dir=str(tmp_path), flush_interval=1)
    unused: Any = None
    state: Any = SimpleNamespace(run_name="run", timestamp=Timestamp())
    logger.init(state, unused)
    logger.log_hyperparameters({"seed": 17, "note": "text"})
    for batch in range(1, 4):
        state.timestamp = Timestamp(batch=batch)
        logger.log_metrics({"loss/train/total": batch / 2}, step=batch)
        logger.batch_end(state, unused)
        assert logged(tmp_path) == {number: number / 2 for number in range(1, batch + 1)}
        logger.log_metrics({"metrics/eval/AnswerLoss": float(batch)}, step=batch)
        logger.eval_end(state, unused)
    logger.epoch_end(state, unused)
    logger.close(state, unused)
    assert len(list(tmp_path.rglob("events.*"))) == 1
    assert logged(tmp_path, "metrics/eval/AnswerLoss") == {1: 1.0, 2: 2.0, 3: 3.0}
    assert logged(tmp_path, "hparams/metrics/eval/AnswerLoss") == {1: 1.0, 2: 2.0, 3: 3.0}
