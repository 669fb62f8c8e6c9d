"""The released models' shapes with the real vocabulary; without it the tests are skipped and say why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
