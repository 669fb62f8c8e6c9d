"""The world encoder against diffusers' whole VAE, and at the size of the real one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from theworld.model.base import resolve_vae
from theworld.model.world_encoder import WorldEncoder, read_vae_config


@pytest.fixture(scope="module")
def whole() -> Any:
    return AutoencoderKLWan.from_pretrained(resolve_vae("builtin:tiny").folder)


@pytest.fixture(scope="module")
def encoder(whole) -> WorldEncoder:
    made = WorldEncoder(read_vae_config(resolve_vae("builtin:tiny").folder))
    made.load_vae(AutoencoderKLWan.from_pretrained(resolve_vae("builtin:tiny").folder))
    return made.eval().requires_grad_(False)


def pixels(size: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_latents_are_the_mode_normalised_by_the_vaes_own_statistics(whole, encoder):
    with torch.no_grad():
        posterior = whole.encode(pixels().unsqueeze(2)).latent_dist
        mean = torch.tensor(whole.config.latents_mean).view(16, 1, 1)
        std = torch.tensor(whole.config.latents_std).view(16, 1, 1)
        expected = (posterior.mean.squeeze(2) - mean) / std
    torch.testing.assert_close(encoder(pixels()), expected)
    assert torch.equal(encoder(pixels()), encoder(pixels()))


def test_pictures_of_a_batch_do_not_touch_each_other(encoder):
    both = encoder(pixels())
    torch.testing.assert_close(torch.cat([encoder(pixels()[:1]), encoder(pixels()[1:])]), both)


@pytest.mark.parametrize("size", [8, 64, 72, 128])
def test_a_latent_is_an_eighth_of_the_picture(encoder, size):
    assert encoder(pixels(size)).shape == (2, 16, size // 8, size // 8)


def test_a_frozen_encoder_keeps_no_graph(encoder):
    assert not encoder(pixels().requires_grad_()).requires_grad


def test_what_only_decoding_needs_is_gone(encoder):
    assert {name.split(".")[1] for name, _ in encoder.named_parameters()} == {"encoder", "quant_conv"}


def test_statistics_survive_a_cast_to_bfloat16(encoder):
    half = WorldEncoder(read_vae_config(resolve_vae("builtin:tiny").folder))
    half.load_state_dict(encoder.state_dict())
    half.to(torch.bfloat16)
    assert half.mean == encoder.mean
    latents = half(pixels())
    assert latents.dtype == torch.float32
    assert (latents - encoder(pixels())).abs().mean() < 0.05


def test_the_real_vae_has_an_encoder_of_54_million_parameters():
    with torch.device("meta"):
        real = WorldEncoder(dict(AutoencoderKLWan().config))
    count = sum(parameter.numel() for parameter in real.parameters())
    assert 53.5e6 < count < 53.8e6
