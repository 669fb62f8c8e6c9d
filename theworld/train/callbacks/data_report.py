"""What went wrong with samples during training, in the metrics and in the log.

A picture that cannot be decoded, a conversation that does not fit: neither ends a run, but both must be seen. The
loader's workers cannot tell (Composer's launcher shows rank 0 only), so the facts travel with the batch and the ranks
put them together here.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from theworld.data.batches.collate import PADDING_SAMPLE

log = logging.getLogger(__name__)

METRICS = ("data/samples_without_loss", "data/turns_cut", "data/irregularities")


class DataReport(Callback):
    """Logs, after each batch, totals since the beginning of the run over all ranks.

    ``data/samples_without_loss``: samples that carried no loss, each named in the log with the reason;
    ``data/turns_cut``: turns beyond ``max_seq_len``; ``data/irregularities``: turns and boxes that were left out.
    """

    def __init__(self) -> None:
        self.totals = [0, 0, 0]

    def batch_end(self, state: State, logger: Logger) -> None:
        batch: dict[str, Any] = state.batch
        real = [reason != PADDING_SAMPLE for reason in batch["skipped"]]
        skipped = {
            name: reason
            for name, reason in zip(batch["sample_ids"], batch["skipped"], strict=True)
            if reason not in ("", PADDING_SAMPLE)
        }
        counts = state.device.tensor_to_device(
            torch.tensor(
                [
                    len(skipped),
                    sum(cut for cut, counted in zip(batch["turns_cut"], real, strict=True) if counted),
                    sum(faults for faults, counted in zip(batch["irregularities"], real, strict=True) if counted),
                ]
            )
        )
        dist.all_reduce(counts)
        found = [int(count) for count in counts.cpu()]
        self.totals = [total + count for total, count in zip(self.totals, found, strict=True)]
        if found[0]:
            for names in dist.all_gather_object(skipped):
                for name, reason in names.items():
                    if dist.get_global_rank() == 0:
                        log.warning("sample %s carries no loss: %s", name, reason)
        logger.log_metrics(dict(zip(METRICS, self.totals, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        return {"totals": list(self.totals)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.totals = [int(total) for total in state["totals"]]
