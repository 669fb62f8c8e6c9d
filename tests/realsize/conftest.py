"""The released models' shapes with the real vocabulary; without it the tests are skipped and say why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers.random_weights import write_gemma_weights, write_vae_weights
from tests.realsize.real_tokenizer import NoTokenizer, fetch_tokenizer
from tests.train.real_shapes import write_real_shapes
from theworld.config.schema import ModelConfig
from theworld.model import TheWorldProcessor, load_processor

IMAGES = {
    "image_processor_type": "Gemma3ImageProcessor",
    "processor_class": "Gemma3Processor",
    "size": {"height": 896, "width": 896},
    "resample": 2,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}

FEW_LAYERS = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"], "intermediate_size": 1024}
"""One layer of each kind. The products between attention are narrower, which nothing here depends on and which take
five sixths of the time."""
FEW_BYTES = 2_500_000_000
"""Weights of these layers, the whole embedding and the VAE, with room to spare."""
STEP_BYTES = 5_500_000_000
"""Two models in memory, and what they compute."""


@pytest.fixture(scope="session")
def real_config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    """A section ``model`` whose bases have everything that the released ones have but the weights."""
    folder = tmp_path_factory.mktemp("real")
    write_real_shapes(folder)
    gemma = folder / "gemma"
    for name in ("special_tokens_map.json", "added_tokens.json", "chat_template.jinja"):
        (gemma / name).unlink(missing_ok=True)
    try:
        fetch_tokenizer(gemma)
    except NoTokenizer as reason:
        pytest.skip(f"realsize: {reason}")
    write_json(gemma / "preprocessor_config.json", IMAGES)
    write_json(gemma / "processor_config.json", {"image_seq_length": 256, "processor_class": "Gemma3Processor"})
    own = json.loads((gemma / "config.json").read_text())
    tokens = {"boi_token_index": 255999, "eoi_token_index": 256000, "image_token_index": 262144}
    write_json(gemma / "config.json", own | tokens)
    return ModelConfig(gemma=str(gemma), cosmos=str(folder / "cosmos"))


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


@pytest.fixture(scope="session")
def real_processor(real_config: ModelConfig) -> TheWorldProcessor:
    return load_processor(real_config)


@pytest.fixture(scope="session")
def weighted_config(real_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelConfig]:
    """The same with random weights of real width and few layers, in files as the released ones."""
    folder = tmp_path_factory.mktemp("weighted")
    need_room("memory", psutil.virtual_memory().available, STEP_BYTES)
    need_room(f"disk for {folder}", shutil.disk_usage(folder).free, FEW_BYTES)
    try:
        gemma = Path(shutil.copytree(real_config.gemma, folder / "gemma"))
        cosmos = Path(shutil.copytree(real_config.cosmos, folder / "cosmos"))
        settings = json.loads((gemma / "config.json").read_text())
        settings["text_config"] |= FEW_LAYERS
        settings["vision_config"]["num_hidden_layers"] = 2
        write_json(gemma / "config.json", settings)
        write_gemma_weights(gemma)
        write_vae_weights(cosmos / "vae")
        yield ModelConfig(gemma=str(gemma), cosmos=str(cosmos))
    finally:
        shutil.rmtree(folder)  # pytest keeps the folders of its last runs


def need_room(what: str, free: int, needed: int) -> None:
    """Skip where there is less."""
    if free < needed:
        pytest.skip(f"realsize: {needed / 1e9:.1f} GB of {what} are needed, {free / 1e9:.1f} are free")
