"""Impossible values of the section ``model`` are refused before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from theworld.config.schema import FreezeConfig, ProjectorConfig
from theworld.errors import UserError
from theworld.model.check_model import check_model_config, count_world_tokens


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"gemma": ""}, "model.gemma"),
        ({"cosmos": ""}, "model.cosmos"),
        ({"projector": ProjectorConfig(mode="patches")}, "model.projector.mode"),
        ({"projector": ProjectorConfig(architecture="mlp2")}, "model.projector.architecture"),
        ({"projector": ProjectorConfig(patch=3)}, "model.projector.patch"),
        ({"projector": ProjectorConfig(patch=0)}, "model.projector.patch"),
        ({"projector": ProjectorConfig(patch=-2)}, "model.projector.patch"),
        ({"world_image_size": 500}, "model.world_image_size"),
        ({"world_image_size": 0}, "model.world_image_size"),
        ({"world_image_size": -8}, "model.world_image_size"),
        ({"projector": ProjectorConfig(mode="pool", patch=3)}, "model.projector.patch is 3"),
        ({"projector": ProjectorConfig(mode="resampler", queries=0)}, "model.projector.queries is 0"),
        ({"enable_world": False}, "nothing to train"),
        ({"freeze": FreezeConfig(projector=True)}, "model.freeze is true: nothing to train"),
        ({"attn_implementation": "fast"}, "model.attn_implementation is 'fast'; expected one of sdpa, eager"),
        ({"attn_implementation": "flash_attention_2"}, "model.attn_implementation .* takes no mask"),
    ],
)
def test_impossible_values_are_one_line_that_names_the_key(tiny_config, changes, key):
    with pytest.raises(UserError, match=key) as caught:
        check_model_config(tiny_config(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"projector": ProjectorConfig(mode="spatial", patch=3)},
        {"projector": ProjectorConfig(mode="channel", architecture="linear")},
        {"projector": ProjectorConfig(mode="pool", queries=0)},
        {"projector": ProjectorConfig(mode="resampler", patch=3)},
        {"world_image_size": 512},
        {"enable_world": False, "cosmos": "", "freeze": FreezeConfig(vision=False)},
    ],
)
def test_possible_values_pass(tiny_config, changes):
    check_model_config(tiny_config(**changes))


@pytest.mark.parametrize(("mode", "patch", "tokens"), [("spatial", 4, 4096), ("channel", 4, 16), ("patch", 4, 256)])
def test_token_counts_of_the_released_model(mode, patch, tokens):
    assert count_world_tokens(mode, patch, latent_side=64) == tokens


def test_checking_imports_neither_torch_nor_transformers():
    code = (
        "import sys, theworld.model.check_model, theworld.model.base\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
