"""Shapes, order and size of world tokens."""

from __future__ import annotations

import pytest
import torch

from theworld.model.projector import WorldProjector


def projector(mode: str = "patch", architecture: str = "mlp", patch: int = 4, side: int = 8) -> WorldProjector:
    made = WorldProjector(mode, architecture, patch, channels=16, side=side, hidden_size=96)
    made.reset_parameters(rms=2.5, generator=torch.Generator().manual_seed(0))
    return made


@pytest.mark.parametrize("architecture", ["mlp", "linear"])
@pytest.mark.parametrize(
    ("mode", "patch", "tokens", "features"),
    [
        ("spatial", 4, 64, 16),
        ("channel", 4, 16, 64),
        ("patch", 1, 64, 16),
        ("patch", 4, 4, 256),
        ("patch", 8, 1, 1024),
        ("pool", 4, 4, 32),
        ("resampler", 4, 64, 96),
    ],
)
def test_every_mode_and_architecture_gives_its_tokens(mode, architecture, patch, tokens, features):
    made = projector(mode, architecture, patch)
    assert (made.num_tokens, made.num_features) == (tokens, features)
    assert made(torch.randn(3, 16, 8, 8)).shape == (3, tokens + 2, 96)


def test_the_released_sizes():
    """A 512 x 512 picture: a latent of 16 x 64 x 64."""
    counts = {
        (mode, patch): projector(mode, "linear", patch, side=64).num_tokens
        for mode, patch in [("spatial", 4), ("channel", 4), ("patch", 4), ("patch", 2), ("pool", 2), ("resampler", 4)]
    }
    assert counts == {
        ("spatial", 4): 4096,
        ("channel", 4): 16,
        ("patch", 4): 256,
        ("patch", 2): 1024,
        ("pool", 2): 1024,
        ("resampler", 4): 64,
    }


@pytest.mark.parametrize(("mode", "patch"), [("spatial", 1), ("patch", 1), ("patch", 2), ("patch", 4), ("pool", 4)])
def test_tokens_go_row_by_row_and_see_their_own_positions_only(mode, patch):
    made, latents = projector(mode, patch=patch), torch.randn(1, 16, 8, 8)
    before = made(latents)
    latents[0, :, 2, 5] += 9
    changed = (made(latents) - before).abs().amax(-1)[0].nonzero().flatten().tolist()
    across = 8 // patch
    assert changed == [1 + (2 // patch) * across + 5 // patch]


def test_a_patch_keeps_all_its_values():
    values = torch.arange(16 * 64.0).reshape(1, 16, 8, 8)
    patches = projector(patch=4).features(values)
    assert sorted(patches[0, 1].tolist()) == sorted(values[0, :, :4, 4:].flatten().tolist())


def test_the_last_layer_has_no_activation():
    """Outputs are as often negative as positive, and grow with the last layer's weights without bound."""
    made = projector()
    tokens = made(torch.randn(64, 16, 8, 8))[:, 1:-1]
    assert 0.4 < (tokens < 0).float().mean() < 0.6
    assert tokens.min() < -2.5


@pytest.mark.parametrize("architecture", ["mlp", "linear"])
@pytest.mark.parametrize("mode", ["spatial", "channel", "patch", "pool", "resampler"])
def test_tokens_are_as_large_as_the_words_beside_them(mode, architecture):
    tokens = projector(mode, architecture)(torch.randn(64, 16, 8, 8))
    assert 0.7 * 2.5 < tokens[:, 1:-1].pow(2).mean().sqrt() < 1.3 * 2.5


def test_start_and_end_are_vectors_of_the_projector():
    made = projector()
    features = made(torch.randn(2, 16, 8, 8))
    assert torch.equal(features[:, 0], made.start.expand(2, -1))
    assert torch.equal(features[:, -1], made.end.expand(2, -1))


@pytest.mark.parametrize("shape", [(16, 8, 8), (1, 16, 8, 4), (1, 8, 8, 8), (1, 16, 16, 16)])
def test_latents_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="world latents: expected"):
        projector()(torch.randn(shape))


def test_pooling_keeps_the_least_and_the_greatest_of_each_channel():
    latents = torch.randn(2, 16, 8, 8)
    features = projector("pool", patch=4).features(latents)
    patch = latents[1, :, 4:, :4].flatten(1)
    assert torch.equal(features[1, 2], torch.cat([patch.amin(1), patch.amax(1)]))


def test_a_resampler_reads_every_position_and_knows_its_place():
    made, latents = projector("resampler"), torch.randn(1, 16, 8, 8)
    before = made(latents)[:, 1:-1]
    for row, column in [(0, 0), (3, 6), (7, 7)]:
        changed = latents.clone()
        changed[0, :, row, column] += 9
        assert (made(changed)[:, 1:-1] - before).abs().amax() > 1e-2
    # The same values elsewhere are another world: without positions attention could not tell them apart.
    turned = made(latents.flip(-1))[:, 1:-1]
    assert (turned - before).abs().mean() > 1e-2
    assert len({tuple(token.tolist()) for token in before[0]}) == 64


@pytest.mark.parametrize("architecture", ["mlp", "linear"])
@pytest.mark.parametrize("mode", ["spatial", "channel", "patch", "pool", "resampler"])
def test_every_weight_and_the_latents_have_gradients(mode, architecture):
    made, latents = projector(mode, architecture), torch.randn(2, 16, 8, 8, requires_grad=True)
    made(latents).pow(2).sum().backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0
    without = [name for name, weight in made.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []
