"""Weights that were saved with transformers 4 or 5 have the names of the one that is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from theworld.compat import VISION_LAYERS
from theworld.model.weight_files import read_weights

OTHERS = ("model.language_model.layers.0.mlp.up_proj.weight", "model.world_projector.start", "lm_head.weight")
OF_LAYER = "0.mlp.fc1.weight"


@pytest.mark.parametrize(
    "saved", ["model.vision_tower.encoder.layers", "model.vision_tower.vision_model.encoder.layers"]
)
def test_an_export_of_either_is_read(tmp_path: Path, saved: str) -> None:
    names = [*OTHERS, f"{saved}.{OF_LAYER}"]
    save_file(
        {name: torch.full((2,), float(place)) for place, name in enumerate(names)}, tmp_path / "model.safetensors"
    )
    read = read_weights(tmp_path)
    assert set(read) == {*OTHERS, f"model.{VISION_LAYERS}.{OF_LAYER}"}
    assert float(read[f"model.{VISION_LAYERS}.{OF_LAYER}"][0]) == 3
