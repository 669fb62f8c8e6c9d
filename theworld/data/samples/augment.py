"""A user's own change of decoded samples (augmentation): drawn anew in each pass, the same after a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from theworld.data.samples.decode import DecodedSample
from theworld.errors import UserError, describe

Augment = Callable[[DecodedSample], DecodedSample]


def sample_seed(seed: int, epoch: int, sample_id: str, copy: int = 0) -> int:
    """The random seed with which this sample is changed, 63 bits.

    It follows from the run's seed, the pass, the sample and the number of its copy in the pass alone, so that neither
    ranks nor workers nor restarts change what is drawn.
    """
    digest = hashlib.sha256(
        f"{seed} {epoch} {sample_id}{f' {copy}' if copy else ''}".encode("utf-8", "surrogatepass")
    ).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def leaves_pixels(function: Augment) -> bool:
    """Whether the function says, by an attribute ``leaves_pixels = True``, that it does not change pictures."""
    return getattr(function, "leaves_pixels", False) is True


def augment_sample(sample: DecodedSample, function: Augment, seed: int) -> DecodedSample:
    """The sample as the function changes it. A sample that must not be trained on stays one.

    Args:
        sample: the picture, boxes drawn, and its turns.
        function: the user's.
        seed: the function finds it as ``sample.seed``.

    Raises:
        UserError: the function fails, which would lose sample after sample; or it returns no sample, or another one:
            each must be trained on exactly once.
    """
    try:
        changed = function(replace(sample, seed=seed))
    except Exception as error:
        raise UserError(f"transform: failed on sample {sample.id}: {describe(error)}") from error
    if not isinstance(changed, DecodedSample) or changed.id != sample.id:
        found = f"sample {changed.id}" if isinstance(changed, DecodedSample) else repr(changed)[:80]
        raise UserError(f"transform: gave {found} for sample {sample.id}; expected the DecodedSample, changed")
    return replace(changed, no_loss=sample.no_loss or changed.no_loss)
