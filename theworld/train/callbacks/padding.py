"""How much of what the model computes is padding."""

from __future__ import annotations

from composer.core import Callback, State
from composer.loggers import Logger

from theworld.data.batches.microbatches import padding_in


class PaddingShare(Callback):
    """Logs ``data/padding``, the share of a batch's tokens that are padding, over the microbatches as they are run.

    Of rank 0's microbatches, whose samples are as good as any other rank's.
    """

    def __init__(self) -> None:
        self.padding = 0
        self.tokens = 0

    def batch_start(self, state: State, logger: Logger) -> None:
        self.padding = self.tokens = 0

    def before_forward(self, state: State, logger: Logger) -> None:
        padding, tokens = padding_in(state.batch)
        self.padding += padding
        self.tokens += tokens

    def batch_end(self, state: State, logger: Logger) -> None:
        logger.log_metrics({"data/padding": self.padding / max(self.tokens, 1)})
