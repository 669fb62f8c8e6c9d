"""diffusers' VAE, imported without what diffusers looks up for its optional packages."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan


def vae_class() -> type[AutoencoderKLWan]:
    """The class ``AutoencoderKLWan``, imported when it is first needed.

    When diffusers is imported it reads the list of files of every installed package, about a second, to know which
    distribution an optional package such as ``bs4`` belongs to. None of those is of use here, so it is told of none.
    """
    plain = importlib.metadata.packages_distributions
    importlib.metadata.packages_distributions = dict
    try:
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    finally:
        importlib.metadata.packages_distributions = plain
    return AutoencoderKLWan
