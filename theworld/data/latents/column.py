"""World latents as a column of the shards, computed by the converter's worker processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theworld.config.schema import Config
from theworld.data.latents.record import LatentRecord, resolve_record

if TYPE_CHECKING:
    from theworld.data.latents.latent_encoder import LatentEncoder


@dataclass(frozen=True)
class LatentColumn:
    """Makes the latent of a sample. Sent to worker processes, where torch is imported when the first one is made.

    Args:
        record: what to make.
        vae: folder of the VAE.
    """

    record: LatentRecord
    vae: Path

    def latent(self, sample: Mapping[str, Any]) -> bytes:
        """The latent of a sample, given as its other columns."""
        from theworld.data.latents.latent_encoder import sample_pixels

        return worker_encoder(self.vae)([sample_pixels(sample, self.record)])[0]


@lru_cache(1)
def worker_encoder(vae: Path) -> LatentEncoder:
    """This process's encoder; processes are spread over the GPUs, and on a CPU each takes one core."""
    import torch

    from theworld.data.latents.latent_encoder import LatentEncoder
    from theworld.rank_group import own_devices

    found = own_devices()
    if found == ["cpu"]:
        torch.set_num_threads(1)
    return LatentEncoder(vae, found[os.getpid() % len(found)])


def latent_column(config: Config) -> LatentColumn | None:
    """What the converter adds to each sample; None unless ``convert.world_latents`` is true.

    Raises:
        UserError: the VAE is not there, or the configuration has no world.
    """
    if not config.convert.world_latents:
        return None
    record, vae = resolve_record(config.model, config.train_loader.dataset.draw_bboxes, weights=True)
    return LatentColumn(record, vae.folder)
