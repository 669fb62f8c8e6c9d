"""What determines a latent besides its picture: kept with the latents, compared with the run that uses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from theworld.config.schema import ModelConfig
from theworld.data.entries.columns import WORLD_LATENTS
from theworld.errors import UserError
from theworld.model.base import Base, resolve_vae
from theworld.model.check_model import VAE_CHANNELS, VAE_STRIDE, check_model_config

COLUMN = WORLD_LATENTS
"""Name of the MDS column, of the data set beside, and of the record in a manifest."""
BYTES_PER_VALUE = 2


@dataclass(frozen=True)
class LatentRecord:
    """How latents were made: by which VAE, from pictures of which size, with boxes drawn or not."""

    vae: str
    """Name of the Cosmos model, as in ``model.cosmos``."""
    revision: str | None
    """The commit on the Hub; None for a folder."""
    fingerprint: str | None
    """Of the VAE's weights (:func:`theworld.model.base.fingerprint`); None where they were not at hand."""
    world_image_size: int
    draw_bboxes: bool
    drawing_style: int = 1
    """:data:`theworld.data.samples.boxes.DRAWING_STYLE`; latents made before it was recorded have the first."""

    @classmethod
    def of_vae(cls, vae: Base, world_image_size: int, draw_bboxes: bool) -> LatentRecord:
        """What this VAE makes of pictures of this size, with or without boxes."""
        from theworld.data.samples.boxes import DRAWING_STYLE  # Pillow, which a look at a record does not need

        base = vae.record()
        return cls(vae.name, base["revision"], base["fingerprint"], world_image_size, draw_bboxes, DRAWING_STYLE)

    @classmethod
    def read(cls, where: str, content: Mapping[str, Any]) -> LatentRecord:
        """The record in a manifest.

        Raises:
            UserError: it is of another version, or damaged.
        """
        try:
            return cls(**content)
        except TypeError as error:
            raise UserError(f"{where}: cannot read the record of its world latents ({error})") from error

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def side(self) -> int:
        """Height and width of a latent."""
        return self.world_image_size // VAE_STRIDE

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample's latent: (16, side, side) in bfloat16."""
        return VAE_CHANNELS * self.side**2 * BYTES_PER_VALUE

    def difference(self, wanted: LatentRecord) -> str | None:
        """Which key of the configuration asks for something else than these latents; None if they are the same."""
        if self.world_image_size != wanted.world_image_size:
            sizes = wanted.world_image_size, self.world_image_size
            return "model.world_image_size: {}, but the world latents are of {}".format(*sizes)
        if self.draw_bboxes != wanted.draw_bboxes:
            return (
                f"train_loader.dataset.draw_bboxes: {str(wanted.draw_bboxes).lower()}, but the world latents are of "
                f"pictures {'with' if self.draw_bboxes else 'without'} boxes"
            )
        if self.draw_bboxes and self.drawing_style != wanted.drawing_style:
            return (
                f"boxes are drawn in style {wanted.drawing_style} now, but the world latents are of pictures whose "
                f"boxes are in style {self.drawing_style}"
            )
        if self.fingerprint and wanted.fingerprint:
            same = self.fingerprint == wanted.fingerprint
        else:
            same = (self.vae, self.revision) == (wanted.vae, wanted.revision)
        if same:
            return None
        return f"model.cosmos: {_named(wanted)}, but the world latents are of {_named(self)}"


def _named(record: LatentRecord) -> str:
    return f"{record.vae} at {record.revision}" if record.revision else f"{record.vae} ({record.fingerprint})"


def resolve_record(model: ModelConfig, draw_bboxes: bool, weights: bool) -> tuple[LatentRecord, Base]:
    """The record that the configuration asks for, and the VAE.

    Args:
        model: the section ``model``.
        draw_bboxes: whether pictures have their boxes drawn.
        weights: whether the VAE's weights are needed on this machine; if not, only its configuration is fetched.

    Raises:
        UserError: the VAE is not there, or the configuration has no world.
    """
    check_model_config(model)
    if not model.enable_world:
        raise UserError("model.enable_world: false, so there are no world latents; set it to true")
    vae = resolve_vae(model.cosmos, model.cosmos_revision, weights=weights)
    return LatentRecord.of_vae(vae, model.world_image_size, draw_bboxes), vae
