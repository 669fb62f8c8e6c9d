"""TensorBoard, one event file a start of the run.

Composer's logger closes its file at each flush and begins another, so that each can be uploaded whole: hundreds of
files a day. It begins one on every rank, and a folder of its own for each evaluation.
"""

from __future__ import annotations

from composer.core import State
from composer.loggers import Logger, TensorboardLogger
from composer.utils import dist
from torch.utils.tensorboard.summary import hparams

from theworld.plain_text import without_secrets


class TensorboardOfStart(TensorboardLogger):
    """Composer's logger, with the same settings, that goes on in its file."""

    told_hyperparameters = False

    def _initialize_summary_writer(self) -> None:
        if not self.rank_zero_only or dist.get_global_rank() == 0:
            super()._initialize_summary_writer()

    def _flush(self, logger: Logger) -> None:
        # Private, as the one place that all flushes go through. What is flushed is in the file, which stays open.
        if self.writer is not None:
            self.writer.flush()

    def eval_end(self, state: State, logger: Logger) -> None:
        """The figures that go with the hyperparameters, and once the hyperparameters."""
        if self.writer is None:
            return
        figures = {
            f"hparams/{name}": value
            for name, value in self.current_metrics.items()
            if "metric" in name or "loss" in name
        }
        if not self.told_hyperparameters:
            self.told_hyperparameters = True
            for summary in hparams(without_secrets(self.hyperparameters), figures):
                self.writer._get_file_writer().add_summary(summary)  # pyright: ignore - it has no public name
        for name, value in figures.items():
            self.writer.add_scalar(name, value, global_step=int(state.timestamp.batch))
        self._flush(logger)

    def close(self, state: State, logger: Logger) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
