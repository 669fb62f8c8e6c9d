"""What loading costs the memory of a machine whose ranks each load the model: the mapped files, once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from tests.helpers.loading import loaded_by_ranks
from theworld.model.tiny import tiny_folder


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A Gemma 3 whose weights are large beside everything else that a process allocates, and their bytes."""
    folder = tmp_path_factory.mktemp("gemma")
    for path in (tiny_folder() / "gemma").iterdir():
        if path.suffix != ".safetensors" and path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    config = Gemma3Config.from_pretrained(folder)
    config.text_config.intermediate_size = 200_000
    torch.manual_seed(5)
    model = Gemma3ForConditionalGeneration(config)
    model.to(torch.bfloat16)  # pyright: ignore[reportArgumentType]
    model.save_pretrained(folder)
    return folder, sum(parameter.nbytes for parameter in model.parameters())


@pytest.mark.slow
def test_ranks_share_the_mapped_weights_until_they_are_on_the_device(gemma: tuple[Path, int]) -> None:
    folder, size = gemma
    ranks = loaded_by_ranks(2, str(folder), "builtin:tiny")
    print(f"{size / 1e6:.0f} MB of weights; {ranks}")
    assert ranks[0]["digest"] == ranks[1]["digest"]
    for rank in ranks:
        assert rank["dtypes"] == ["torch.bfloat16", "torch.float32"]  # the VAE stays frozen
        assert rank["peak"] < 0.3 * size
        assert rank["private"] < 0.3 * size
