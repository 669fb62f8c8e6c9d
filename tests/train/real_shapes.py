"""The released models' shapes without their weights or their tokenizer: what estimates and wiring are tested on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from tests.helpers.image_processor import change_image_processor
from theworld.model.tiny import tiny_folder

GEMMA_4B = {
    "dtype": "bfloat16",
    "text_config": {
        "model_type": "gemma3_text",
        "vocab_size": 262208,
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "sliding_window": 1024,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 896,
        "patch_size": 14,
        "vision_use_head": False,
    },
    "mm_tokens_per_image": 256,
}


LARGER = {
    "12B": {"hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48},
    "27B": {"hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 62},
}
"""What their language models have of their own; vision and vocabulary are the 4B's."""
LARGER["12B"] |= {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "query_pre_attn_scalar": 256}
LARGER["27B"] |= {"num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "query_pre_attn_scalar": 168}


def write_real_shapes(folder: Path, size: str = "4B") -> list[str]:
    """Write the configurations of Gemma 3 in this size and the Cosmos VAE; the overrides that name them.

    The tokenizer is the tiny model's, so that nothing is fetched; the embedding has the real one's rows.
    """
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    gemma, cosmos = folder / "gemma", folder / "cosmos"
    shutil.copytree(tiny_folder() / "gemma", gemma, ignore=shutil.ignore_patterns("*.safetensors"))
    settings = json.loads((gemma / "config.json").read_text())
    text = {**GEMMA_4B["text_config"], **LARGER.get(size, {})}
    (gemma / "config.json").write_text(json.dumps({**settings, **GEMMA_4B, "text_config": text}))
    change_image_processor(gemma, size={"height": 896, "width": 896})
    change(gemma / "processor_config.json", image_seq_length=256)
    with torch.device("meta"):
        AutoencoderKLWan().save_config(cosmos / "vae")
    return [f"model.gemma={gemma}", f"model.cosmos={cosmos}"]


def change(file: Path, **settings: Any) -> None:
    """Put settings into a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
