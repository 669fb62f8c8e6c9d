"""A file of trained weights put back on its base models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from theworld.errors import UserError
from theworld.model import TheWorldForConditionalGeneration, load_model
from theworld.model.tiny import tiny_folder


@pytest.fixture
def partial(tiny_config, tmp_path) -> Path:
    """A folder with the projector's weights alone, moved away from their first values."""
    model = load_model(tiny_config())
    config = model.config
    config.partial_weights = True
    config.architectures = ["TheWorldForConditionalGeneration"]
    config.save_pretrained(tmp_path / "partial")
    weights = {name: value + 1 for name, value in model.state_dict().items() if "world_projector" in name}
    save_file(weights, tmp_path / "partial" / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "partial"


def change(folder: Path, **weights: torch.Tensor | None) -> None:
    """Replace, add or (None) remove weights of the file."""
    file = folder / "model.safetensors"
    now = load_file(file)
    for name, value in weights.items():
        now.pop(name, None)
        if value is not None:
            now[name] = value
    save_file(now, file, metadata={"format": "pt"})


@pytest.mark.parametrize("loader", [TheWorldForConditionalGeneration, AutoModelForImageTextToText])
def test_trained_weights_are_the_files_and_the_others_the_bases(loader, partial, tiny_config, tmp_path) -> None:
    model = loader.from_pretrained(partial)
    trained, base = load_file(partial / "model.safetensors"), load_model(tiny_config()).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, trained[name] if name in trained else base[name]), name
    assert trained.keys() < base.keys()
    model.save_pretrained(tmp_path / "whole")
    whole = loader.from_pretrained(tmp_path / "whole")
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model.world_projector.start": None}, r"1 weights missing, for example model\.world_projector\.start"),
        ({"stray": torch.zeros(2)}, "1 weights unexpected, for example stray"),
        ({"model.world_projector.start": torch.zeros(3)}, "1 weights of another shape"),
    ],
)
def test_a_weight_that_does_not_fit_is_an_error(partial, changes, says) -> None:
    change(partial, **changes)
    with pytest.raises(UserError, match=says):
        TheWorldForConditionalGeneration.from_pretrained(partial)


def test_other_weights_in_a_base_are_an_error(partial, tmp_path) -> None:
    gemma = Path(shutil.copytree(tiny_folder() / "gemma", tmp_path / "gemma"))
    change(gemma, **{name: value + 1 for name, value in load_file(gemma / "model.safetensors").items()})
    config = json.loads((partial / "config.json").read_text())
    config["base"]["gemma"]["name"] = str(gemma)
    (partial / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="holds other weights than when the model was trained"):
        TheWorldForConditionalGeneration.from_pretrained(partial)


def test_a_folder_without_weights_is_an_error(partial) -> None:
    (partial / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        TheWorldForConditionalGeneration.from_pretrained(partial)
